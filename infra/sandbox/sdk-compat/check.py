"""Drives the SnapTrade sandbox with SnapTrade's official Python client.

Usage: check.py BASE_URL. Exits 0 when every answer is as a client of the real service would expect it.
"""

import json
import sys
import urllib.request
import uuid

from snaptrade_client import SnapTrade
from snaptrade_client.auth import SnapTradeAuth
from snaptrade_client.exceptions import ApiException

CLIENT_ID = "SANDBOX-CLIENT"
CONSUMER_KEY = "sandbox-consumer-key"


def client(base_url, consumer_key=CONSUMER_KEY):
    auth = SnapTradeAuth.commercial_api_key(client_id=CLIENT_ID, consumer_key=consumer_key)
    return SnapTrade(auth=auth, host=base_url)


def control(base_url, call, body):
    request = urllib.request.Request(
        f"{base_url}/__sandbox/{call}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def refused(call):
    """The status and the body of a call that has to be refused."""
    try:
        call()
    except ApiException as error:
        body = error.body if isinstance(error.body, dict) else json.loads(error.body)
        return error.status, body
    raise AssertionError("the call was not refused")


def check(base_url):
    api = client(base_url)
    assert api.api_status.check().body["online"] is True
    assert api.reference_data.get_partner_info().body["slug"]
    slugs = {one["slug"] for one in api.reference_data.list_all_brokerages().body}
    assert len(slugs) >= 5 and "SANDBOX" in slugs, slugs

    # Not ASCII on purpose: this client signs such a text in another form than it sends.
    user_id = f"python-é-{uuid.uuid4()}"
    registered = api.authentication.register_snap_trade_user(user_id=user_id).body
    assert registered["userId"] == user_id
    user = {"user_id": user_id, "user_secret": registered["userSecret"]}
    assert user_id in api.authentication.list_snap_trade_users().body

    status, body = refused(lambda: api.authentication.register_snap_trade_user(user_id=user_id))
    assert (status, body["code"]) == (400, "1010"), body
    status, body = refused(lambda: client(base_url, "wrong-key").reference_data.get_partner_info())
    assert (status, body["code"]) == (401, "1076"), body
    status, body = refused(
        lambda: api.account_information.list_user_accounts(user_id=user_id, user_secret="wrong")
    )
    assert (status, body["code"]) == (401, "1083"), body

    login = api.authentication.login_snap_trade_user(
        **user,
        broker="ROBINHOOD",
        connection_type="trade",
        custom_redirect="https://example.com/back?a=1&b=2",
        immediate_redirect=True,
        dark_mode=True,
    ).body
    assert login["redirectURI"].startswith(f"{base_url}/snapTrade/redeemToken?"), "another host"
    assert login["sessionId"] in login["redirectURI"]
    assert api.authentication.login_snap_trade_user(**user).body["redirectURI"]

    assert api.connections.list_brokerage_authorizations(**user).body == []
    connected = control(base_url, "connect", {"user_id": user_id, "broker": "ROBINHOOD"})
    connections = api.connections.list_brokerage_authorizations(**user).body
    assert [one["id"] for one in connections] == [connected["connection_id"]], connections
    assert connections[0]["brokerage"]["slug"] == "ROBINHOOD"
    connection = {"authorization_id": connected["connection_id"], **user}
    assert api.connections.detail_brokerage_authorization(**connection).body["type"] == "trade"
    assert "scheduled" in api.connections.refresh_brokerage_authorization(**connection).body["detail"]

    accounts = api.account_information.list_user_accounts(**user).body
    assert [one["id"] for one in accounts] == connected["account_ids"]
    by_connection = api.connections.list_connection_accounts(
        connection_id=connected["connection_id"], **user
    ).body
    assert len(by_connection["results"]) == len(accounts)
    all_accounts = api.account_information.list_all_user_accounts(**user).body
    assert len(all_accounts["results"]) == len(accounts)
    account = {"account_id": accounts[0]["id"], **user}
    assert api.account_information.get_user_account_details(**account).body["id"] == accounts[0]["id"]
    assert api.account_information.get_user_account_balance(**account).body[0]["currency"]["code"] == "USD"
    positions = api.account_information.get_all_account_positions(**account).body
    assert positions["results"][0]["instrument"]["symbol"] == "AAPL", positions
    activities = api.account_information.get_account_activities(**account, limit=2).body
    assert len(activities["data"]) == 2 and activities["pagination"]["total"] == 4
    assert api.account_information.get_user_account_orders(**account).body == []
    rates = api.account_information.get_user_account_return_rates(**account).body
    assert any(one["timeframe"] == "1Y" for one in rates["data"])

    order = {"action": "BUY", "order_type": "Limit", "time_in_force": "Day", "price": 31.0, "units": 2.5}
    symbol = api.reference_data.get_symbols(substring="AAPL").body[0]["id"]
    impact = api.trading.get_order_impact(
        account_id=accounts[0]["id"], universal_symbol_id=symbol, **user, **order
    ).body
    placed = api.trading.place_order(trade_id=impact["trade"]["id"], **user).body
    assert placed["status"] == "PENDING", placed
    cancelled = api.trading.cancel_order(**account, brokerage_order_id=placed["brokerage_order_id"]).body
    assert cancelled["brokerage_order_id"] == placed["brokerage_order_id"]

    fresh = api.authentication.reset_snap_trade_user_secret(**user).body["userSecret"]
    assert fresh != user["user_secret"]
    user["user_secret"] = fresh
    deleted = api.connections.delete_connection(connection_id=connected["connection_id"], **user).body
    assert deleted["connection_id"] == connected["connection_id"]
    assert api.account_information.list_user_accounts(**user).body == []
    assert api.authentication.delete_snap_trade_user(user_id=user_id).body["status"] == "deleted"
    assert user_id not in api.authentication.list_snap_trade_users().body
    status, body = refused(lambda: api.authentication.delete_snap_trade_user(user_id=user_id))
    assert status == 404, body
    assert api.management.get_stats().body["total_users"] >= 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    # The client takes its base URL as it is; a slash at the end would become part of what is signed.
    check(sys.argv[1].rstrip("/"))
    print("The Python client works against the sandbox.")
