//! What the model promises of a node's events and of what it knows.

use super::world::World;
use crate::backend::BackendEvent;
use crate::session::{Generation, SessionEvent};

impl World {
    /// An event of a session that is what the model says, in its order, and not twice.
    pub(super) fn check(&mut self, event: &BackendEvent) {
        let number = event.generation.map(Generation::number);
        let life = number.and_then(|number| usize::try_from(number).ok());
        let Some(life) = life.map(|life| &mut self.lives[life]) else { return };
        match &event.event {
            SessionEvent::Set(_) => {
                let version = event.version.unwrap_or_default();
                assert!(!life.end_emitted, "a change after the end: {event:?}");
                assert!(version <= life.version || life.back, "a change that never was: {event:?}");
                let client = &self.clients[life.client];
                let tracked = client.watchers > 0 && !client.left && !life.back;
                if let Some(last) = life.emitted.last() {
                    assert!(!tracked || version > *last, "twice, or backwards: {event:?}");
                }
                life.emitted.push(version);
                life.seen |= client.watchers > 0;
            }
            SessionEvent::Destroy(_) => {
                assert!(life.ended, "the end of a session that lives: {event:?}");
                assert!(!life.end_emitted, "an end came twice: {event:?}");
                life.end_emitted = true;
            }
            _ => {}
        }
    }

    /// What is known has not ended as far as events say.
    pub(super) fn check_known(&self) {
        assert!(self.view.tracker.is_consistent());
        for id in &self.ids {
            if let Some(known) = self.view.cached_session(id) {
                let life = usize::try_from(known.generation.number()).unwrap_or(0);
                assert!(!self.lives[life].end_emitted, "known after its end: {known:?}");
            }
        }
    }

    /// What a node with sockets knows is what there is.
    pub(super) fn check_all_known(&self) {
        for (client, id) in self.ids.iter().enumerate() {
            if self.clients[client].watchers == 0 {
                continue;
            }
            let known = self.view.cached_session(id).map(|known| (known.session_id, known.version));
            let there = self.stored(client).map(|record| (record.session_id, record.version));
            assert_eq!(known, there, "client {client}");
        }
    }

    pub(super) fn check_all_emitted(&self) {
        for life in &self.lives {
            let client = &self.clients[life.client];
            if life.back {
                continue;
            }
            if life.ended && (life.seen || (life.end_told && !self.lost)) {
                assert!(life.end_emitted, "an end was not emitted: {life:?}");
            }
            if client.left || client.watchers == 0 {
                continue;
            }
            if !self.lost && !self.compared {
                let first = life.emitted.first().copied().unwrap_or(life.version);
                let all: Vec<_> = (first..=life.version).collect();
                assert_eq!(life.emitted, all, "changes were left out: {life:?}");
            }
            if !life.ended && !life.seen {
                panic!("sockets were not notified of what there is: {life:?}");
            }
        }
    }
}
