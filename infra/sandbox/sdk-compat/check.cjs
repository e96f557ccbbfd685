// Drives the SnapTrade sandbox with SnapTrade's official TypeScript client.
//
// Usage: node check.cjs BASE_URL. Exits 0 when every answer is as a client of the real service would expect it.
"use strict";

const assert = require("node:assert/strict");
const { randomUUID } = require("node:crypto");
const { Snaptrade, SnaptradeAuth } = require("snaptrade-typescript-sdk");

const clientId = "SANDBOX-CLIENT";
const consumerKey = "sandbox-consumer-key";

function client(basePath, key = consumerKey) {
  return new Snaptrade({ auth: SnaptradeAuth.commercialApiKey({ clientId, consumerKey: key }), basePath });
}

async function control(baseUrl, call, body) {
  const answer = await fetch(`${baseUrl}/__sandbox/${call}`, { method: "POST", body: JSON.stringify(body) });
  assert.equal(answer.status, 200, await answer.clone().text());
  return answer.json();
}

// The status and the code of a call that has to be refused.
async function refused(call) {
  try {
    await call();
  } catch (error) {
    return [error.status, error.responseBody?.code];
  }
  throw new assert.AssertionError({ message: "the call was not refused" });
}

async function check(baseUrl) {
  const api = client(baseUrl);
  assert.equal((await api.apiStatus.check()).data.online, true);
  assert.ok((await api.referenceData.getPartnerInfo()).data.slug);
  const slugs = (await api.referenceData.listAllBrokerages()).data.map((one) => one.slug);
  assert.ok(slugs.length >= 5 && slugs.includes("SANDBOX"), String(slugs));

  // Not ASCII on purpose: this client signs such a text as it is, the Python one escapes it.
  const userId = `typescript-é-${randomUUID()}`;
  const registered = (await api.authentication.registerSnapTradeUser({ userId })).data;
  assert.equal(registered.userId, userId);
  const user = { userId, userSecret: registered.userSecret };
  assert.ok((await api.authentication.listSnapTradeUsers()).data.includes(userId));

  assert.deepEqual(await refused(() => api.authentication.registerSnapTradeUser({ userId })), [400, "1010"]);
  assert.deepEqual(await refused(() => client(baseUrl, "wrong-key").referenceData.getPartnerInfo()), [401, "1076"]);
  const wrong = { userId, userSecret: "wrong" };
  assert.deepEqual(await refused(() => api.accountInformation.listUserAccounts(wrong)), [401, "1083"]);

  const login = (
    await api.authentication.loginSnapTradeUser({
      ...user,
      broker: "ROBINHOOD",
      connectionType: "trade",
      customRedirect: "https://example.com/back?a=1&b=2",
      immediateRedirect: true,
      darkMode: true,
    })
  ).data;
  assert.ok(login.redirectURI.startsWith(`${baseUrl}/snapTrade/redeemToken?`), "another host");
  assert.ok(login.redirectURI.includes(login.sessionId));
  assert.ok((await api.authentication.loginSnapTradeUser(user)).data.redirectURI);

  assert.deepEqual((await api.connections.listBrokerageAuthorizations(user)).data, []);
  const connected = await control(baseUrl, "connect", { user_id: userId, broker: "ROBINHOOD" });
  const connections = (await api.connections.listBrokerageAuthorizations(user)).data;
  assert.deepEqual(connections.map((one) => one.id), [connected.connection_id]);
  assert.equal(connections[0].brokerage.slug, "ROBINHOOD");
  const connection = { authorizationId: connected.connection_id, ...user };
  assert.equal((await api.connections.detailBrokerageAuthorization(connection)).data.type, "trade");
  assert.match((await api.connections.refreshBrokerageAuthorization(connection)).data.detail, /scheduled/);

  const accounts = (await api.accountInformation.listUserAccounts(user)).data;
  assert.deepEqual(accounts.map((one) => one.id), connected.account_ids);
  const account = { accountId: accounts[0].id, ...user };
  assert.equal((await api.accountInformation.getUserAccountDetails(account)).data.id, accounts[0].id);
  assert.equal((await api.accountInformation.getUserAccountBalance(account)).data[0].currency.code, "USD");
  const positions = (await api.accountInformation.getAllAccountPositions(account)).data;
  assert.equal(positions.results[0].instrument.symbol, "AAPL");
  const activities = (await api.accountInformation.getAccountActivities({ ...account, limit: 2 })).data;
  assert.equal(activities.data.length, 2);
  assert.equal(activities.pagination.total, 4);
  // This release still has calls that new clients of the service are denied.
  assert.equal((await refused(() => api.accountInformation.getUserAccountPositions(account)))[0], 410);

  const symbol = (await api.referenceData.getSymbols({ substring: "AAPL" })).data[0].id;
  const impact = (
    await api.trading.getOrderImpact({
      ...user,
      account_id: accounts[0].id,
      action: "BUY",
      order_type: "Limit",
      time_in_force: "Day",
      price: 31.0,
      units: 2.5,
      universal_symbol_id: symbol,
    })
  ).data;
  const placed = (await api.trading.placeOrder({ ...user, tradeId: impact.trade.id })).data;
  assert.equal(placed.status, "PENDING");
  await api.trading.cancelOrder({ ...account, brokerage_order_id: placed.brokerage_order_id });

  const fresh = (await api.authentication.resetSnapTradeUserSecret(user)).data.userSecret;
  assert.notEqual(fresh, user.userSecret);
  user.userSecret = fresh;
  const deleted = await api.connections.deleteConnection({ connectionId: connected.connection_id, ...user });
  assert.equal(deleted.data.connection_id, connected.connection_id);
  assert.deepEqual((await api.accountInformation.listUserAccounts(user)).data, []);
  assert.equal((await api.authentication.deleteSnapTradeUser({ userId })).data.status, "deleted");
  assert.ok(!(await api.authentication.listSnapTradeUsers()).data.includes(userId));
  assert.equal((await refused(() => api.authentication.deleteSnapTradeUser({ userId })))[0], 404);
}

const [baseUrl] = process.argv.slice(2);
if (baseUrl === undefined) {
  console.error("Usage: node check.cjs BASE_URL");
  process.exit(2);
}
check(baseUrl.replace(/\/+$/, "")).then(
  () => console.log("The TypeScript client works against the sandbox."),
  (error) => {
    // Never the whole error: it holds the request with its secret and signature.
    console.error(error instanceof assert.AssertionError ? error : `${error.name}: ${error.status} ${error.code}`);
    process.exit(1);
  },
);
