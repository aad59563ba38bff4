//! The program of a box: accepts, finds out where to dial on, and has a flow run between the two connections.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use host::Host;
use tokio::io::AsyncWriteExt;

use super::flow::{self, Ended};
use super::{Kind, Middlebox, PROXY_PORT, http};
use crate::fabric::{Fabric, Socket};
use crate::host::SimListener;
use crate::machine::Program;
use crate::trace::Trace;

/// What a story may ask of a box while it runs: counts of the faults that want it so.
#[derive(Debug, Default)]
pub(crate) struct Controls {
    pub(crate) n_swallows: AtomicUsize,
    pub(crate) n_bad_gateways: AtomicUsize,
}

/// A box in its place.
#[derive(Clone)]
pub(crate) struct Placed {
    pub(crate) plan: Middlebox,
    pub(crate) machine: String,
    /// The machine to dial on to, and the port there and here.
    pub(crate) next: String,
    pub(crate) port: u16,
    pub(crate) controls: Arc<Controls>,
    pub(crate) fabric: Fabric,
    pub(crate) trace: Trace,
}

/// What comes of a connection that was accepted.
enum Way {
    /// It goes on, and these bytes were read already.
    On(Socket, Bytes),
    /// It was answered, or nothing will ever come of it.
    Over,
}

impl Placed {
    /// Its program. It ends when it is drained, and takes all flows with it.
    pub(crate) fn program(self) -> Program {
        Arc::new(move |host, mut drain| {
            let this = self.clone();
            let incarnation = this.fabric.incarnation(&this.machine);
            Box::pin(async move {
                let addr = SocketAddr::from((Ipv4Addr::UNSPECIFIED, this.listens_at()));
                let bound = SimListener::bind(this.fabric.clone(), &this.machine, incarnation, addr);
                let listener = bound.map_err(|error| error.to_string())?;
                loop {
                    let (near, _) = tokio::select! {
                        biased;
                        () = drain.started() => {
                            host.tasks().abort_all();
                            return Ok(());
                        }
                        accepted = listener.accept_socket() => accepted,
                    };
                    let (this, its_host) = (this.clone(), host.clone());
                    host.spawn("flow", async move { this.serve(&its_host, incarnation, near).await });
                }
            })
        })
    }

    fn listens_at(&self) -> u16 {
        match self.plan.kind {
            Kind::LoadBalancer => self.port,
            Kind::ConnectProxy { .. } => PROXY_PORT,
        }
    }

    async fn serve(&self, host: &Host, incarnation: u64, mut near: Socket) {
        if self.controls.n_swallows.load(Ordering::Relaxed) > 0 {
            self.trace.tell(&self.machine, "accepts and does not forward");
            // Nor does it when the fault is over: only who dials again gets through.
            return std::future::pending().await;
        }
        let way = match self.find_way(host, incarnation, &mut near).await {
            Ok(way) => way,
            Err(error) => {
                self.trace.tell(&self.machine, format!("finds no way on: {error}"));
                return near.reset();
            }
        };
        let Way::On(far, early) = way else { return };
        let tell = |what: &str| self.trace.tell(&self.machine, what);
        match flow::run(&self.plan, near, far, early).await {
            Ended::Closed => {}
            Ended::Broken => tell("passes on a reset"),
            Ended::Reset => tell("resets a flow"),
            Ended::Forgotten(near, far) => {
                tell("forgets a flow");
                // Nobody reads these any more, and nobody is told.
                std::future::pending::<()>().await;
                drop((near, far));
            }
        }
    }

    async fn find_way(&self, host: &Host, incarnation: u64, near: &mut Socket) -> io::Result<Way> {
        if self.controls.n_bad_gateways.load(Ordering::Relaxed) > 0 {
            http::read_head(near).await?;
            http::refuse(near, http::BAD_GATEWAY).await?;
            return Ok(Way::Over);
        }
        match &self.plan.kind {
            Kind::LoadBalancer => {
                let next = self.next.clone();
                Ok(Way::On(self.dial(host, incarnation, &next, self.port).await?, Bytes::new()))
            }
            Kind::ConnectProxy { credentials } => {
                let head = http::read_head(near).await?;
                let asked = match http::asked_of_proxy(&head.text, credentials.as_deref()) {
                    Ok(asked) => asked,
                    Err(refusal) => {
                        http::refuse(near, refusal).await?;
                        return Ok(Way::Over);
                    }
                };
                let Ok(far) = self.dial(host, incarnation, &asked.0, asked.1).await else {
                    http::refuse(near, http::BAD_GATEWAY).await?;
                    return Ok(Way::Over);
                };
                near.write_all(http::ESTABLISHED).await?;
                Ok(Way::On(far, head.behind))
            }
        }
    }

    /// Dials on, address after address.
    async fn dial(&self, host: &Host, incarnation: u64, name: &str, port: u16) -> io::Result<Socket> {
        let mut last = io::ErrorKind::NotFound.into();
        for addr in host.resolve(name, port).await? {
            match tokio::time::timeout(host::CONNECT_MAX, self.fabric.dial(&self.machine, incarnation, addr)).await {
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }
}
