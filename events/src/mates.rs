//! Requests that travel together and name each other by their keys: which is decided first, and which lead back to themselves.
//!
//! The rules know tasks that were requested before, and no others: a task comes after older ones only, so what they accept has no cycles. Whoever
//! submits many at once may name them in any order, and here they are put into one in which each comes behind those that it names.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// Names that the text about a cycle shows; of a longer one it shows the beginning.
const SHOWN_MAX: usize = 8;

/// A request's own name and the names that it uses; a name is a task type and a key.
#[derive(Clone, Debug, Default)]
pub struct Mate<'a> {
    /// What the request is called, where it has a key.
    pub name: Option<(&'a str, &'a str)>,
    /// For each task that it comes after, its name where it has one here.
    pub after: Vec<Option<(&'a str, &'a str)>>,
}

/// What to do with requests that travel together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Those that may be decided, in their order.
    pub order: Vec<usize>,
    /// For each request, which of its names stand for which other one: the index among its names, and the request.
    pub links: Vec<Vec<(usize, usize)>>,
    /// Those whose names lead back to themselves, or to others that do, with the way there.
    pub circular: Vec<(usize, String)>,
}

/// Puts requests into an order; those that name nobody here keep theirs.
pub fn plan(mates: &[Mate<'_>]) -> Plan {
    let mut names = BTreeMap::new();
    for (index, mate) in mates.iter().enumerate() {
        if let Some(name) = mate.name {
            names.entry(name).or_insert(index);
        }
    }
    let link = |(place, name): (usize, &Option<(&str, &str)>)| Some((place, *names.get(&(*name)?)?));
    let links: Vec<Vec<(usize, usize)>> =
        mates.iter().map(|mate| mate.after.iter().enumerate().filter_map(link).collect()).collect();
    let order = sorted(&links);
    let decided: BTreeSet<usize> = order.iter().copied().collect();
    let circular =
        (0..mates.len()).filter(|index| !decided.contains(index)).map(|index| (index, way(mates, &links, &decided, index)));
    Plan { circular: circular.collect(), order, links }
}

/// The requests that lead to no cycle, each behind those that it names; otherwise in their order (Kahn 1962, Communications of the ACM 5:11).
fn sorted(links: &[Vec<(usize, usize)>]) -> Vec<usize> {
    let mut named_by: Vec<Vec<usize>> = vec![Vec::new(); links.len()];
    let mut open: Vec<usize> = links.iter().map(Vec::len).collect();
    for (index, names) in links.iter().enumerate() {
        names.iter().for_each(|(_, mate)| named_by[*mate].push(index));
    }
    let mut free: BinaryHeap<Reverse<usize>> = (0..links.len()).filter(|index| open[*index] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(links.len());
    while let Some(Reverse(next)) = free.pop() {
        order.push(next);
        for behind in &named_by[next] {
            open[*behind] -= 1;
            if open[*behind] == 0 {
                free.push(Reverse(*behind));
            }
        }
    }
    order
}

/// From a request along names that lead to a cycle until one comes again: `a → b → a`.
fn way(mates: &[Mate<'_>], links: &[Vec<(usize, usize)>], decided: &BTreeSet<usize>, from: usize) -> String {
    let (mut seen, mut next) = (vec![from], from);
    loop {
        let onward = links[next].iter().map(|(_, mate)| *mate).find(|mate| !decided.contains(mate));
        // Whatever was not decided names another one that was not.
        let Some(mate) = onward else { break };
        let is_over = seen.contains(&mate) || seen.len() >= SHOWN_MAX;
        seen.push(mate);
        next = mate;
        if is_over {
            break;
        }
    }
    let name = |index: &usize| mates[*index].name.map_or("this request", |(_, key)| key);
    let is_cut = seen.iter().filter(|index| **index == next).count() < 2;
    seen.iter().map(name).collect::<Vec<_>>().join(" → ") + if is_cut { " → …" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a: b c` is a request with the key `a` that comes after those with the keys `b` and `c`.
    fn planned(lines: &[&str]) -> Plan {
        let name = |key: &'static str| Some(("job", key));
        let lines: Vec<&'static str> = lines.iter().map(|line| &*Box::leak((*line).to_owned().into_boxed_str())).collect();
        let mates: Vec<Mate<'_>> = lines
            .iter()
            .map(|line| {
                let (own, after) = line.split_once(':').unwrap_or((line, ""));
                let after = after.split_whitespace().map(|key| if key == "0-7" { None } else { name(key) }).collect();
                Mate { name: name(own).filter(|_| !own.is_empty()), after }
            })
            .collect();
        plan(&mates)
    }

    #[test]
    fn each_is_decided_behind_those_that_it_names_and_the_others_in_their_order() {
        assert_eq!(planned(&["a", "b", ":", "c"]).order, [0, 1, 2, 3]);
        let plan = planned(&["d: b c", "b: a", "x", "c: a 0-7", "a", ": d gone"]);
        assert_eq!(plan.order, [2, 4, 1, 3, 0, 5]);
        assert_eq!(plan.links, [vec![(0, 1), (1, 3)], vec![(0, 4)], vec![], vec![(0, 4)], vec![], vec![(0, 0)]]);
        assert!(plan.circular.is_empty());
        // The second one with a key is the same request again.
        assert_eq!(planned(&["b: a", "a", "a"]).order, [1, 0, 2]);
    }

    #[test]
    fn what_leads_back_to_itself_is_named_with_the_way_and_the_others_are_decided() {
        let plan = planned(&["a: b", "b: a", "c", "d: a c", ": c"]);
        assert_eq!(plan.order, [2, 4]);
        let expected = [(0, "a → b → a"), (1, "b → a → b"), (3, "d → a → b → a")].map(|(index, way)| (index, way.to_owned()));
        assert_eq!(plan.circular, expected);
        assert_eq!(planned(&["a: a"]).circular, [(0, "a → a".to_owned())]);
        assert_eq!(planned(&[": a", "a: a"]).circular[0].1, "this request → a → a");
    }

    #[test]
    fn a_long_cycle_is_cut_and_a_long_chain_is_none() {
        let ring: Vec<String> = (0..1_000).map(|index| format!("{index}: {}", (index + 1) % 1_000)).collect();
        let plan = planned(&ring.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!((plan.order.len(), plan.circular.len()), (0, 1_000));
        assert_eq!(plan.circular[0].1, "0 → 1 → 2 → 3 → 4 → 5 → 6 → 7 → 8 → …");
        let chain: Vec<String> = (0..1_000).map(|index| format!("{index}: {}", index + 1)).collect();
        let order = planned(&chain.iter().map(String::as_str).collect::<Vec<_>>()).order;
        assert_eq!(order, (0..1_000).rev().collect::<Vec<_>>());
    }
}
