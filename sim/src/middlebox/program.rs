//! The program of a box: accepts, finds out where to dial on, and has a flow run between the two connections.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use host::Host;
use tokio::io::AsyncWriteExt;

use super::flow::{self, Ended, Leg};
use super::{Kind, Middlebox, PROXY_PORT, http, tls};
use crate::fabric::{Fabric, Socket};
use crate::host::SimListener;
use crate::machine::{Machine, Program};
use crate::trace::Trace;

/// What a story may ask of a box while it runs: counts of the faults that want it so.
#[derive(Debug, Default)]
pub(crate) struct Controls {
    pub(crate) n_swallows: AtomicUsize,
    pub(crate) n_bad_gateways: AtomicUsize,
    pub(crate) n_forbidden: AtomicUsize,
}

impl Controls {
    /// What a proxy answers to all CONNECTs by order of a story.
    fn proxy_refusal(&self) -> Option<&'static str> {
        (self.n_forbidden.load(Ordering::Relaxed) > 0).then_some(http::FORBIDDEN)
    }
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
    On(Box<dyn Leg>, Box<dyn Leg>, Bytes),
    /// It was answered, or nothing will ever come of it.
    Over,
}

impl Placed {
    /// Its machine, which `add` makes of its program, with the certificate that the box shows.
    pub(crate) fn equipped(self, add: impl FnOnce(Program) -> Machine) -> Machine {
        let plan = self.plan.clone();
        let machine = add(self.program());
        tls::equip(&machine, &plan);
        machine
    }

    /// Its program. It ends when it is drained, and takes all flows with it.
    fn program(self) -> Program {
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

    async fn serve(&self, host: &Host, incarnation: u64, near: Socket) {
        if self.controls.n_swallows.load(Ordering::Relaxed) > 0 {
            self.trace.tell(&self.machine, "accepts and does not forward");
            // Nor does it when the fault is over: only who dials again gets through.
            return std::future::pending().await;
        }
        let near = match tls::accept(host, self.plan.tls, near).await {
            Ok(near) => near,
            Err(error) => return self.trace.tell(&self.machine, format!("a handshake came to nothing: {error}")),
        };
        let (near, far, early) = match self.find_way(host, incarnation, near).await {
            Ok(Way::On(near, far, early)) => (near, far, early),
            Ok(Way::Over) => return,
            Err((near, error)) => {
                self.trace.tell(&self.machine, format!("finds no way on: {error}"));
                return near.reset();
            }
        };
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

    /// Where a connection goes on to; with an error the connection itself comes back.
    async fn find_way(&self, host: &Host, incarnation: u64, mut near: Box<dyn Leg>) -> Result<Way, (Box<dyn Leg>, io::Error)> {
        match self.way_on(host, incarnation, &mut near).await {
            Ok(Some((far, early))) => Ok(Way::On(near, far, early)),
            Ok(None) => Ok(Way::Over),
            Err(error) => Err((near, error)),
        }
    }

    async fn way_on(&self, host: &Host, incarnation: u64, near: &mut Box<dyn Leg>) -> io::Result<Option<(Box<dyn Leg>, Bytes)>> {
        if self.controls.n_bad_gateways.load(Ordering::Relaxed) > 0 {
            http::read_head(near).await?;
            http::refuse(near, http::BAD_GATEWAY).await?;
            return Ok(None);
        }
        let (far, early) = match &self.plan.kind {
            Kind::LoadBalancer if self.plan.drops_upgrades => {
                let head = http::read_head(near).await?;
                let early = [http::without_upgrade(&head.text).as_bytes(), &head.behind].concat();
                (self.dial(host, incarnation, &self.next, self.port).await?, Bytes::from(early))
            }
            Kind::LoadBalancer => (self.dial(host, incarnation, &self.next, self.port).await?, Bytes::new()),
            Kind::ConnectProxy { credentials } => {
                let head = http::read_head(near).await?;
                let refusals = self.controls.proxy_refusal();
                let asked = match http::asked_of_proxy(&head.text, credentials.as_deref()) {
                    Ok(asked) if refusals.is_none() => asked,
                    Ok(_) => {
                        http::refuse(near, refusals.unwrap_or_default()).await?;
                        return Ok(None);
                    }
                    Err(refusal) => {
                        http::refuse(near, refusal).await?;
                        return Ok(None);
                    }
                };
                self.trace.tell(&self.machine, format!("is asked for {}:{}", asked.0, asked.1));
                let Ok(far) = self.dial(host, incarnation, &asked.0, asked.1).await else {
                    http::refuse(near, http::BAD_GATEWAY).await?;
                    return Ok(None);
                };
                near.write_all(http::ESTABLISHED).await?;
                (far, head.behind)
            }
        };
        Ok(Some((tls::dial_on(host, self.plan.tls, far).await?, early)))
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
