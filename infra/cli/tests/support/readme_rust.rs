use berth::app::App;
use berth::connections::operations::UserChange;
use berth::connections::{Connections, Failure};
use berth::ids::{TenantId, UserId};

async fn reactive(app: &App, user: &UserId) -> Result<(), Failure> {
    let limit = Connections::new(app, TenantId::default(), "backend", true);
    let registered = limit.register(user).await?;
    if let Some(evicted) = registered.evicted {
        println!("{:?} gave way to {}", evicted.user_id, registered.user_id);
    }
    Ok(())
}

async fn proactive(app: &App, user: &UserId) -> Result<(), Failure> {
    let limit = Connections::new(app, TenantId::default(), "backend", true);
    let held = limit.hold(user).await?;
    println!("a place is kept until {:?}", held.held_until);
    // Whatever has to be asked or checked first happens here.
    limit.register(user).await?;
    Ok(())
}

async fn operate(app: &App, known_to_snaptrade: &UserId) -> Result<(), Failure> {
    let limit = Connections::new(app, TenantId::default(), "operator", true);
    let protection = UserChange {
        protected: Some(true),
        ..UserChange::default()
    };
    limit.sync().await?;
    limit.add(known_to_snaptrade, protection).await?;
    for user in limit.list(50, None).await?.users {
        println!("{} since {}", user.user_id, user.created_at);
    }
    let status = limit.status(known_to_snaptrade, true).await?;
    println!("{} of {} in use", status.current_count, status.max_connections);
    limit.auto_manage().await?;
    limit.delete_oldest().await?;
    Ok(())
}
