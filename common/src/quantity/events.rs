//! Where events between two samples are taken to be.

use crate::quantity::program::{NodeIndex, QuantityNode, QuantityProgram};
use crate::quantity::reduce::EventStep;

/// Largest number of events of a number that are moved each by itself.
const MAX_FREE_EVENTS: usize = 4;

/// Where an event between two samples is taken to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventRounding {
    /// Between the samples, in a straight line.
    Between,
    /// At the last sample before it.
    Before,
    /// At the first sample after it.
    After,
}

impl EventRounding {
    /// All of them, the number itself first.
    pub const ALL: [Self; 3] = [Self::Between, Self::Before, Self::After];

    /// The step of an event; NaN without one.
    pub(super) fn round(self, event: Option<EventStep>) -> f64 {
        event.map_or(f64::NAN, |event| match self {
            Self::Between => event.between,
            Self::Before => event.before,
            Self::After => event.after,
        })
    }
}

/// The sample at which each of several events is taken to be: the last one before it, or the first one after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventCorner {
    /// The events that are at the sample after them.
    late: Vec<NodeIndex>,
}

impl EventCorner {
    /// All combinations of places of some events. Those beyond [`MAX_FREE_EVENTS`] move together with the last one of these.
    fn of_events(events: &[NodeIndex]) -> Vec<Self> {
        let free = events.len().min(MAX_FREE_EVENTS);
        let corners = (0..1_u32 << free).map(|corner| {
            let places = events.iter().enumerate();
            let late = places.filter(|(place, _)| corner >> (*place).min(free - 1) & 1 == 1);
            Self {
                late: late.map(|(_, event)| *event).collect(),
            }
        });
        corners.collect()
    }

    /// Where the event of a node is taken to be.
    pub fn round_at(&self, node: NodeIndex) -> EventRounding {
        match self.late.contains(&node) {
            true => EventRounding::After,
            false => EventRounding::Before,
        }
    }
}

impl QuantityProgram {
    /// The combinations of samples at which the events of a number may be; none if it has fewer than two events, which
    /// [`EventRounding`] moves.
    pub fn find_corners(&self, root: NodeIndex) -> Vec<EventCorner> {
        let nodes = self.nodes.iter().zip(self.used_nodes(root)).enumerate();
        let events = nodes.filter(|(_, (node, is_used))| {
            *is_used
                && matches!(node, QuantityNode::Reduction(reduction) if reduction.reducer.is_event())
        });
        match &events.map(|(at, _)| at).collect::<Vec<_>>()[..] {
            [] | [_] => Vec::new(),
            events => EventCorner::of_events(events),
        }
    }
}
