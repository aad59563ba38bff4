//! A room with so many places, in which strangers make way for newcomers when it is full.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::Source;

/// One in so many strangers makes way at once: to choose costs a look at all of them, and a flood would have us choose for
/// each of its connections.
const MAKE_WAY: usize = 64;

/// Places, taken by strangers until each is settled. Clones are the same room.
#[derive(Clone)]
pub(super) struct Room {
    places: Arc<Semaphore>,
    strangers: Arc<Mutex<Strangers>>,
}

#[derive(Default)]
struct Strangers {
    next_id: u64,
    /// In the order of their coming.
    by_id: BTreeMap<u64, Stranger>,
}

struct Stranger {
    /// Where it comes from, as far as that is known and means anything.
    source: Option<Source>,
    leave: oneshot::Sender<()>,
}

/// A place that is taken until this is dropped.
pub(super) struct Seat {
    room: Room,
    id: u64,
    asked_to_leave: Option<oneshot::Receiver<()>>,
    _place: OwnedSemaphorePermit,
}

impl Room {
    pub(super) fn new(n_places: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(n_places)), strangers: Arc::default() }
    }

    /// A place, for which strangers make way if need be; none when all places are taken by who is settled.
    pub(super) async fn seat(&self) -> Option<Seat> {
        let place = match self.places.clone().try_acquire_owned() {
            Ok(place) => place,
            // Whoever is asked to leave does so when its task has a turn.
            Err(_) if self.make_way() => self.places.clone().acquire_owned().await.ok()?,
            Err(_) => return None,
        };
        let (leave, asked_to_leave) = oneshot::channel();
        let mut strangers = self.strangers();
        let id = strangers.next_id;
        strangers.next_id += 1;
        strangers.by_id.insert(id, Stranger { source: None, leave });
        Some(Seat { room: self.clone(), id, asked_to_leave: Some(asked_to_leave), _place: place })
    }

    /// Resolves when all of `n_places` are free.
    pub(super) async fn emptied(&self, n_places: u32) {
        // The semaphore is never closed.
        let _ = self.places.acquire_many(n_places).await;
    }

    /// It is known where a stranger comes from.
    pub(super) fn locate(&self, id: u64, source: Option<Source>) {
        if let Some(stranger) = self.strangers().by_id.get_mut(&id) {
            stranger.source = source;
        }
    }

    /// It is no stranger any more, and keeps its place.
    pub(super) fn settle(&self, id: u64) {
        self.strangers().by_id.remove(&id);
    }

    /// Asks some strangers to leave: those of the source that has most, and of them who came first. A flood pushes itself
    /// out as far as its addresses are known, and else whoever does nothing for longest.
    fn make_way(&self) -> bool {
        let mut strangers = self.strangers();
        let mut of_source = BTreeMap::<_, usize>::new();
        for stranger in strangers.by_id.values() {
            *of_source.entry(stranger.source).or_default() += 1;
        }
        let mut order: Vec<_> =
            strangers.by_id.iter().map(|(id, one)| (Reverse(of_source.get(&one.source).copied()), *id)).collect();
        order.sort_unstable();
        let mut anybody = false;
        for (_, id) in order.iter().take(order.len().div_ceil(MAKE_WAY)) {
            if let Some(stranger) = strangers.by_id.remove(id) {
                // Who is gone already gives its place back too.
                let _ = stranger.leave.send(());
                anybody = true;
            }
        }
        anybody
    }

    fn strangers(&self) -> MutexGuard<'_, Strangers> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Resolves when it has to make way; never for who is settled.
    pub(super) async fn has_to_leave(&mut self) {
        if let Some(asked) = self.asked_to_leave.take()
            && asked.await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.room.settle(self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::TrustedProxies;

    fn is_asked(seat: &mut Seat) -> bool {
        let mut asked = pin!(seat.has_to_leave());
        asked.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_source_with_most_strangers_makes_way_and_of_it_who_came_first() {
        let direct: TrustedProxies = "direct".parse().expect("direct");
        let room = Room::new(4);
        let seat = |address: &str| {
            let mut seat = pin!(room.seat());
            let Poll::Ready(Some(seat)) = seat.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
                panic!("no place");
            };
            room.locate(seat.id(), direct.source(address.parse().expect("an address")));
            seat
        };
        let mut good = seat("192.0.2.1");
        let mut settled = seat("192.0.2.66");
        let (mut first, mut second) = (seat("192.0.2.66"), seat("192.0.2.66"));
        room.settle(settled.id());
        let mut waiting = pin!(room.seat());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        assert!(is_asked(&mut first));
        assert!(!is_asked(&mut good) && !is_asked(&mut settled));
        drop(first);
        assert!(waiting.as_mut().poll(&mut cx).is_ready());
        assert!(!is_asked(&mut second));
    }

    #[tokio::test]
    async fn who_is_settled_makes_way_for_nobody() {
        let room = Room::new(1);
        let seat = room.seat().await.expect("the only place");
        room.settle(seat.id());
        assert!(room.seat().await.is_none());
        drop(seat);
        assert!(room.seat().await.is_some());
    }
}
