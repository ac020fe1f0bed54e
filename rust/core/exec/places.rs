//! Where the values of a run lie: one piece of memory, in which values take the place of those that nothing reads any more.

use super::step::{Source, Step};
use crate::tensor::LINE;
use std::cmp::Reverse;
use std::ops::Range;

/// Most values that get a place, the largest: the search takes time by the square of their number.
const MOST: usize = 1 << 13;

/// A value between the step that writes it and the last one that reads it.
struct Value {
    slot: usize,
    size: usize,
    first: usize,
    last: usize,
}

/// Gives the values that steps write a place each, as `places` of the steps, and returns the bytes that all take together.
/// `sizes` are the slots' in bytes; values in `leaving` get memory of their own, since they go to the caller.
///
/// Large values come first, each in the smallest gap that is large enough between those that live at the same time ("greedy by
/// size for offset calculation" in Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020).
pub fn place(steps: &mut [Step], sizes: &[u64], leaving: &[Source]) -> usize {
    let mut written = vec![None; sizes.len()];
    let mut last = vec![steps.len(); sizes.len()];
    for (s, step) in steps.iter().enumerate() {
        step.outputs.iter().flatten().for_each(|&slot| written[slot] = Some(s));
        step.frees.iter().for_each(|&slot| last[slot] = s);
    }
    leaving.iter().filter_map(Source::slot).for_each(|slot| written[slot] = None);
    let size = |slot: usize| usize::try_from(sizes[slot]).ok()?.checked_next_multiple_of(LINE);
    let value = |slot: usize| Some(Value { slot, size: size(slot)?, first: written[slot]?, last: last[slot] });
    let mut values: Vec<Value> = (0..sizes.len()).filter_map(value).filter(|v| v.size > 0).collect();
    values.sort_by_key(|v| Reverse(v.size));
    values.truncate(MOST);
    let mut places = vec![None; sizes.len()];
    let mut bytes = 0;
    // What has a place, by place.
    let mut placed: Vec<(Range<usize>, &Value)> = Vec::with_capacity(values.len());
    for value in &values {
        let meets = |other: &Value| value.first <= other.last && other.first <= value.last;
        let (mut end, mut best): (usize, Option<Range<usize>>) = (0, None);
        for (range, _) in placed.iter().filter(|(_, other)| meets(other)) {
            let gap = end..range.start.max(end);
            if gap.len() >= value.size && best.as_ref().is_none_or(|best| gap.len() < best.len()) {
                best = Some(gap);
            }
            end = end.max(range.end);
        }
        let at = best.map_or(end, |gap| gap.start);
        let Some(until) = at.checked_add(value.size) else { continue };
        places[value.slot] = Some(at);
        bytes = bytes.max(until);
        placed.insert(placed.partition_point(|(range, _)| range.start < at), (at..until, value));
    }
    for step in steps {
        step.places = step.outputs.iter().map(|slot| slot.and_then(|slot| places[slot])).collect();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::step::free_after_last_read;
    use crate::ops::{Outputs, closure::kernel};

    /// Steps that read and write these slots, and the bytes that their values take.
    fn placed(nodes: &[(&[usize], &[usize])], sizes: &[u64], leaving: &[usize]) -> (Vec<Step>, usize) {
        let mut steps: Vec<Step> = nodes
            .iter()
            .map(|(inputs, outputs)| Step {
                node: None,
                label: String::new(),
                conversion: None,
                kernel: kernel(|_, _| Ok(Outputs::default())).unwrap(),
                inputs: inputs.iter().map(|&slot| Some(Source::Slot(slot))).collect(),
                outputs: outputs.iter().map(|&slot| Some(slot)).collect(),
                frees: Vec::new(),
                places: Vec::new(),
            })
            .collect();
        let leaving: Vec<Source> = leaving.iter().map(|&slot| Source::Slot(slot)).collect();
        free_after_last_read(&mut steps, sizes.len(), leaving.iter());
        let bytes = place(&mut steps, sizes, &leaving);
        (steps, bytes)
    }

    /// Panics where two values that are there at the same time overlap.
    fn check(steps: &[Step], sizes: &[u64], bytes: usize) {
        let mut live: Vec<(usize, Range<usize>)> = Vec::new();
        for step in steps {
            for (slot, at) in step.outputs.iter().zip(&step.places) {
                let (Some(slot), Some(at)) = (slot, at) else { continue };
                let range = *at..at + sizes[*slot] as usize;
                assert!(range.end <= bytes && at % LINE == 0);
                assert!(live.iter().all(|(_, other)| range.end <= other.start || other.end <= range.start));
                live.push((*slot, range));
            }
            live.retain(|(slot, _)| !step.frees.contains(slot));
        }
    }

    #[test]
    fn a_chain_takes_as_much_as_its_largest_pair() {
        let sizes = [0, 640, 64, 6400, 128, 1280, 1];
        let nodes: Vec<([usize; 1], [usize; 1])> = (0..6).map(|i| ([i], [i + 1])).collect();
        let nodes: Vec<(&[usize], &[usize])> = nodes.iter().map(|(i, o)| (&i[..], &o[..])).collect();
        let (steps, bytes) = placed(&nodes, &sizes, &[6]);
        check(&steps, &sizes, bytes);
        assert_eq!(bytes, 6400 + 128);
        assert_eq!(steps[5].places, [None], "what leaves has memory of its own");
    }

    #[test]
    fn values_that_are_read_later_stay() {
        // Slot 1 is read at the end; slots 2 and 4 are never there at one time; slot 5 has no reader.
        let sizes = [0, 100, 1000, 50, 900, 64, 10];
        let (steps, bytes) =
            placed(&[(&[0], &[1]), (&[1], &[2]), (&[2], &[3]), (&[3], &[4, 5]), (&[4, 1], &[6])], &sizes, &[]);
        check(&steps, &sizes, bytes);
        assert_eq!(steps[1].places, [steps[3].places[0]; 1]);
        assert!(steps.iter().all(|step| step.places.iter().all(Option::is_some)));
        assert_eq!(bytes, 1024 + 128 + 64);
    }

    #[test]
    fn nothing_overlaps_in_graphs_of_any_form() {
        let mut seed = 1u64;
        let mut next = |below: usize| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as usize % below
        };
        for _ in 0..200 {
            let count = 2 + next(40);
            let sizes: Vec<u64> = (0..=count).map(|_| next(5000) as u64).collect();
            let nodes: Vec<(Vec<usize>, [usize; 1])> =
                (0..count).map(|i| ((0..1 + next(3)).map(|_| next(i + 1)).collect(), [i + 1])).collect();
            let nodes: Vec<(&[usize], &[usize])> = nodes.iter().map(|(i, o)| (&i[..], &o[..])).collect();
            let (steps, bytes) = placed(&nodes, &sizes, &[count]);
            check(&steps, &sizes, bytes);
        }
    }

    #[test]
    fn sizes_that_no_memory_has_get_no_place() {
        let (steps, bytes) =
            placed(&[(&[0], &[1]), (&[1], &[2]), (&[2], &[3])], &[0, u64::MAX, u64::MAX - 10, 64], &[]);
        assert_eq!((steps[2].places[0], bytes > 0), (Some(0), true));
    }
}
