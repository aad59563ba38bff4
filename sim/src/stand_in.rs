//! What stands in for an API server or for the hub: a story's own words to whoever connects.

use std::fmt;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use host::{Connection, Host};

use crate::machine::Program;
use crate::pki;

type Served = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Serves each connection of agents, behind its TLS if there is any.
#[derive(Clone)]
pub struct StandIn(Arc<dyn Fn(Host, Connection) -> Served + Send + Sync>);

impl StandIn {
    /// One that does this with each.
    pub fn new<F: Future<Output = ()> + Send + 'static>(serve: impl Fn(Host, Connection) -> F + Send + Sync + 'static) -> Self {
        Self(Arc::new(move |host, connection| Box::pin(serve(host, connection))))
    }

    pub(crate) fn program(&self, port: u16) -> Program {
        let serve = self.0.clone();
        Arc::new(move |host, mut drain| {
            let serve = serve.clone();
            Box::pin(async move {
                let addr = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
                let listener = host.listen(addr).await.map_err(|error| error.to_string())?;
                let tls = pki::of_api_server(&host)?;
                let accept = async {
                    while let Ok(connection) = listener.accept().await {
                        let (served_on, serve, tls) = (host.clone(), serve.clone(), tls.clone());
                        host.spawn("stand-in", async move {
                            let peer = connection.peer();
                            let connection = match tls {
                                None => connection,
                                Some(tls) => match tls.accept(connection).await {
                                    Ok((connection, _)) => Connection::new(connection, peer),
                                    Err(_) => return,
                                },
                            };
                            serve(served_on, connection).await;
                        });
                    }
                };
                tokio::select! {
                    biased;
                    () = drain.started() => {}
                    () = accept => {}
                }
                host.tasks().abort_all();
                Ok(())
            })
        })
    }
}

impl fmt::Debug for StandIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StandIn")
    }
}
