//! An ordered map: a B+ tree of counted nodes. A clone is one pointer; a change copies the nodes on its way that a clone still has.

use std::sync::Arc;

use bincode::de::{BorrowDecoder, Decoder};
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{BorrowDecode, Decode, Encode};

/// Entries for which a node has room; it splits when it gets there. More makes a search shorter and a copied node dearer: a node of the
/// largest entries here, idempotency keys, is 3 KiB, which copies in less time than the rest of a request takes.
const NODE_ROOM: usize = 64;
/// A node with fewer entries looks for a neighbour to go together with.
const NODE_MIN: usize = NODE_ROOM / 4;
/// Most entries of two nodes that go together: not so many that the next insertion splits them again.
const MERGED_MAX: usize = NODE_ROOM / 4 * 3;

/// An ordered map whose clones share their nodes.
#[derive(Clone)]
pub struct SharedMap<K, V> {
    root: Arc<Node<K, V>>,
    len: usize,
}

/// All leaves are equally deep. No node but an empty root is empty.
enum Node<K, V> {
    Leaf {
        keys: Vec<K>,
        values: Vec<V>,
    },
    /// `firsts[i]` is not above any key of `children[i]` and above all of `children[i - 1]`.
    Branch {
        firsts: Vec<K>,
        children: Vec<Arc<Node<K, V>>>,
    },
}

enum Inserted<K, V> {
    Replaced(V),
    Fits,
    /// The node was full; this is its upper part.
    Split(Node<K, V>),
}

impl<K: Copy + Ord, V: Clone> SharedMap<K, V> {
    /// Number of entries.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        let mut node = &*self.root;
        loop {
            match node {
                Node::Leaf { keys, values } => return values.get(keys.binary_search(key).ok()?),
                Node::Branch { firsts, children } => node = &children[child_of(firsts, key)],
            }
        }
    }

    /// Whether there is an entry with this key.
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The entry with the lowest key.
    pub fn first_key_value(&self) -> Option<(&K, &V)> {
        let mut node = &*self.root;
        loop {
            match node {
                Node::Leaf { keys, values } => return keys.first().zip(values.first()),
                Node::Branch { children, .. } => node = children.first()?,
            }
        }
    }

    /// The entry with the highest key.
    pub fn last_key_value(&self) -> Option<(&K, &V)> {
        let mut node = &*self.root;
        loop {
            match node {
                Node::Leaf { keys, values } => return keys.last().zip(values.last()),
                Node::Branch { children, .. } => node = children.last()?,
            }
        }
    }

    /// Puts a value under a key and returns the one that was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match Arc::make_mut(&mut self.root).insert(key, value) {
            Inserted::Replaced(old) => return Some(old),
            Inserted::Fits => {}
            Inserted::Split(upper) => self.grow(upper),
        }
        self.len += 1;
        None
    }

    /// Takes an entry out and returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let removed = Arc::make_mut(&mut self.root).remove(key)?;
        self.len -= 1;
        self.shrink();
        Some(removed)
    }

    /// Puts a root above the old one and what it was split from.
    fn grow(&mut self, upper: Node<K, V>) {
        let lower = Arc::clone(&self.root);
        let firsts = roomy([lower.first(), upper.first()]);
        self.root = Arc::new(Node::Branch { firsts, children: roomy([lower, Arc::new(upper)]) });
    }

    /// Takes roots away that have nothing to choose from.
    fn shrink(&mut self) {
        while let Node::Branch { children, .. } = &*self.root
            && children.len() <= 1
        {
            self.root = children.first().map(Arc::clone).unwrap_or_default();
        }
    }

    /// All entries by key.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter { path: vec![(&*self.root, 0)] }
    }

    /// Entries from this key on.
    pub fn iter_from(&self, key: &K) -> Iter<'_, K, V> {
        let (mut path, mut node) = (Vec::new(), &*self.root);
        loop {
            match node {
                Node::Leaf { keys, .. } => {
                    path.push((node, keys.partition_point(|other| other < key)));
                    return Iter { path };
                }
                Node::Branch { firsts, children } => {
                    let index = child_of(firsts, key);
                    path.push((node, index + 1));
                    node = &children[index];
                }
            }
        }
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values, by key.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

/// The child that has this key if any has.
fn child_of<K: Ord>(firsts: &[K], key: &K) -> usize {
    firsts.partition_point(|first| first <= key).saturating_sub(1)
}

/// A row that never has to move on its way to a full node.
fn roomy<T>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut row = Vec::with_capacity(NODE_ROOM);
    row.extend(items);
    row
}

/// Where a full node splits that has just grown at `grown`: in the middle, but at its end where it grows there, so that what comes in
/// order leaves full nodes behind.
const fn cut(len: usize, grown: usize) -> usize {
    if grown + 1 == len { len - 1 } else { len / 2 }
}

impl<K: Copy + Ord, V: Clone> Node<K, V> {
    const fn len(&self) -> usize {
        match self {
            Node::Leaf { keys, .. } => keys.len(),
            Node::Branch { firsts, .. } => firsts.len(),
        }
    }

    /// A key that is not above any of the node's, which has one.
    fn first(&self) -> K {
        match self {
            Node::Leaf { keys, .. } => keys[0],
            Node::Branch { firsts, .. } => firsts[0],
        }
    }

    fn insert(&mut self, key: K, value: V) -> Inserted<K, V> {
        let grown = match self {
            Node::Leaf { keys, values } => match keys.binary_search(&key) {
                Ok(index) => return Inserted::Replaced(std::mem::replace(&mut values[index], value)),
                Err(index) => {
                    keys.insert(index, key);
                    values.insert(index, value);
                    index
                }
            },
            Node::Branch { firsts, children } => {
                let index = child_of(firsts, &key);
                firsts[index] = firsts[index].min(key);
                match Arc::make_mut(&mut children[index]).insert(key, value) {
                    Inserted::Split(upper) => {
                        firsts.insert(index + 1, upper.first());
                        children.insert(index + 1, Arc::new(upper));
                        index + 1
                    }
                    done @ (Inserted::Replaced(_) | Inserted::Fits) => return done,
                }
            }
        };
        if self.len() < NODE_ROOM { Inserted::Fits } else { Inserted::Split(self.split(cut(self.len(), grown))) }
    }

    fn split(&mut self, at: usize) -> Node<K, V> {
        match self {
            Node::Leaf { keys, values } => Node::Leaf { keys: roomy(keys.drain(at..)), values: roomy(values.drain(at..)) },
            Node::Branch { firsts, children } => {
                Node::Branch { firsts: roomy(firsts.drain(at..)), children: roomy(children.drain(at..)) }
            }
        }
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        match self {
            Node::Leaf { keys, values } => {
                let index = keys.binary_search(key).ok()?;
                keys.remove(index);
                Some(values.remove(index))
            }
            Node::Branch { firsts, children } => {
                let index = child_of(firsts, key);
                let removed = Arc::make_mut(&mut children[index]).remove(key)?;
                tidy(firsts, children, index);
                Some(removed)
            }
        }
    }

    /// Appends a node of the same depth whose keys are all above.
    fn append(&mut self, upper: Node<K, V>) {
        match (self, upper) {
            (Node::Leaf { keys, values }, Node::Leaf { keys: upper_keys, values: upper_values }) => {
                keys.extend(upper_keys);
                values.extend(upper_values);
            }
            (Node::Branch { firsts, children }, Node::Branch { firsts: upper_firsts, children: upper_children }) => {
                firsts.extend(upper_firsts);
                children.extend(upper_children);
            }
            (Node::Leaf { .. }, Node::Branch { .. }) | (Node::Branch { .. }, Node::Leaf { .. }) => {
                unreachable!("siblings are equally deep")
            }
        }
    }
}

/// Takes an empty child away, and puts a small one together with a neighbour where both fit.
fn tidy<K: Copy + Ord, V: Clone>(firsts: &mut Vec<K>, children: &mut Vec<Arc<Node<K, V>>>, index: usize) {
    let len = children[index].len();
    if len == 0 {
        firsts.remove(index);
        children.remove(index);
    } else if len < NODE_MIN {
        let fits =
            |lower: &usize| children.get(lower + 1).is_some_and(|upper| children[*lower].len() + upper.len() <= MERGED_MAX);
        if let Some(lower) = [index.checked_sub(1), Some(index)].into_iter().flatten().find(fits) {
            firsts.remove(lower + 1);
            let upper = Arc::unwrap_or_clone(children.remove(lower + 1));
            Arc::make_mut(&mut children[lower]).append(upper);
        }
    }
}

impl<K, V> Default for Node<K, V> {
    fn default() -> Self {
        Node::Leaf { keys: Vec::new(), values: Vec::new() }
    }
}

impl<K: Copy, V: Clone> Clone for Node<K, V> {
    fn clone(&self) -> Self {
        match self {
            Node::Leaf { keys, values } => {
                Node::Leaf { keys: roomy(keys.iter().copied()), values: roomy(values.iter().cloned()) }
            }
            Node::Branch { firsts, children } => {
                Node::Branch { firsts: roomy(firsts.iter().copied()), children: roomy(children.iter().map(Arc::clone)) }
            }
        }
    }
}

/// Walks over the entries of a [`SharedMap`] by key.
pub struct Iter<'a, K, V> {
    /// The nodes from the root to where it is, each with the index that comes next.
    path: Vec<(&'a Node<K, V>, usize)>,
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (node, index) = self.path.last_mut()?;
            let at = *index;
            *index += 1;
            match *node {
                Node::Leaf { keys, values } if at < keys.len() => return Some((&keys[at], &values[at])),
                Node::Branch { children, .. } if at < children.len() => self.path.push((&children[at], 0)),
                Node::Leaf { .. } | Node::Branch { .. } => drop(self.path.pop()),
            }
        }
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        SharedMap { root: Arc::default(), len: 0 }
    }
}

impl<'a, K: Copy + Ord, V: Clone> IntoIterator for &'a SharedMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Iter<'a, K, V> {
        self.iter()
    }
}

impl<K: Copy + Ord, V: Clone> FromIterator<(K, V)> for SharedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = SharedMap::default();
        entries.into_iter().for_each(|(key, value)| drop(map.insert(key, value)));
        map
    }
}

impl<K: Copy + Ord, V: Clone> std::ops::Index<&K> for SharedMap<K, V> {
    type Output = V;

    fn index(&self, key: &K) -> &V {
        self.get(key).expect("whoever indexes knows that the key is there")
    }
}

impl<K: Copy + Ord, V: Clone + PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<K: Copy + Ord, V: Clone + Eq> Eq for SharedMap<K, V> {}

impl<K: Copy + Ord + std::fmt::Debug, V: Clone + std::fmt::Debug> std::fmt::Debug for SharedMap<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Written as every other map is: the number of entries, then each key with its value.
impl<K: Copy + Ord + Encode, V: Clone + Encode> Encode for SharedMap<K, V> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (self.len as u64).encode(encoder)?;
        self.iter().try_for_each(|(key, value)| {
            key.encode(encoder)?;
            value.encode(encoder)
        })
    }
}

impl<Context, K: Copy + Ord + Decode<Context>, V: Clone + Decode<Context>> Decode<Context> for SharedMap<K, V> {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let len = usize::try_from(u64::decode(decoder)?).map_err(|_| DecodeError::LimitExceeded)?;
        decoder.claim_container_read::<(K, V)>(len)?;
        let mut map = SharedMap::default();
        for _ in 0..len {
            decoder.unclaim_bytes_read(size_of::<(K, V)>());
            let key = K::decode(decoder)?;
            map.insert(key, V::decode(decoder)?);
        }
        Ok(map)
    }
}

impl<'de, Context, K: Copy + Ord + Decode<Context>, V: Clone + Decode<Context>> BorrowDecode<'de, Context> for SharedMap<K, V> {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Self::decode(decoder)
    }
}

#[cfg(test)]
impl<K, V> SharedMap<K, V> {
    /// How many nodes a copy has for itself: what changes since it was made have cost.
    pub(crate) fn nodes_apart(&self, other: &Self) -> usize {
        fn nodes<'a, K, V>(node: &'a Arc<Node<K, V>>, into: &mut Vec<*const Node<K, V>>) {
            into.push(Arc::as_ptr(node));
            if let Node::Branch { children, .. } = &**node {
                children.iter().for_each(|child| nodes(child, into));
            }
        }
        let (mut own, mut others) = (Vec::new(), Vec::new());
        nodes(&self.root, &mut own);
        nodes(&other.root, &mut others);
        let others: std::collections::BTreeSet<_> = others.into_iter().collect();
        own.iter().filter(|node| !others.contains(*node)).count()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl<K: Copy + Ord, V: Clone> Node<K, V> {
        /// Checks what the type's comment promises; returns the depth and the number of entries.
        fn check(&self, is_root: bool) -> (usize, usize) {
            assert!(is_root || self.len() > 0, "no node but the root is empty");
            assert!(self.len() < NODE_ROOM, "{} entries", self.len());
            match self {
                Node::Leaf { keys, values } => {
                    assert!(keys.is_sorted_by(|one, other| one < other) && keys.len() == values.len());
                    (0, keys.len())
                }
                Node::Branch { firsts, children } => {
                    assert!(firsts.is_sorted_by(|one, other| one < other) && firsts.len() == children.len());
                    assert!(firsts.iter().zip(children).all(|(first, child)| *first <= child.first()));
                    let below: Vec<_> = children.iter().map(|child| child.check(false)).collect();
                    assert!(below.iter().all(|(depth, _)| *depth == below[0].0), "leaves are equally deep");
                    (below[0].0 + 1, below.iter().map(|(_, len)| len).sum())
                }
            }
        }
    }

    fn check<V: Clone + PartialEq + std::fmt::Debug>(map: &SharedMap<u32, V>, model: &BTreeMap<u32, V>) {
        assert_eq!(map.root.check(true).1, map.len());
        assert_eq!(map.len(), model.len());
        assert!(map.iter().eq(model.iter()), "{map:?}\n{model:?}");
        assert_eq!((map.first_key_value(), map.last_key_value()), (model.first_key_value(), model.last_key_value()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever is done, a map is what the map of the standard library is, and so is every copy that was made on the way.
        #[test]
        fn it_is_an_ordered_map_and_its_copies_keep_what_they_saw(
            steps in prop::collection::vec((0..4_u8, 0..2_000_u32), 0..6_000),
            copied in 0..6_000_usize,
        ) {
            let (mut map, mut model) = (SharedMap::default(), BTreeMap::new());
            let mut copy = (map.clone(), model.clone());
            for (index, (step, key)) in steps.into_iter().enumerate() {
                if index == copied {
                    copy = (map.clone(), model.clone());
                }
                match step {
                    // Long runs in order and long removals, or nodes would neither fill nor empty.
                    0 | 1 => (key..key + 30).for_each(|key| assert_eq!(map.insert(key, index), model.insert(key, index))),
                    2 => (key..key + 40).for_each(|key| assert_eq!(map.remove(&key), model.remove(&key))),
                    _ => assert_eq!(map.get(&key), model.get(&key)),
                }
                prop_assert!(map.iter_from(&key).take(3).eq(model.range(key..).take(3)));
            }
            check(&map, &model);
            check(&copy.0, &copy.1);
        }
    }

    #[test]
    fn entries_in_order_leave_full_nodes_and_leave_from_the_front() {
        let mut map: SharedMap<u32, ()> = (0..100_000).map(|key| (key, ())).collect();
        let leaves = 100_000 / (NODE_ROOM - 1);
        let nodes = map.nodes_apart(&SharedMap::default());
        assert!(nodes < leaves + leaves / 50 + 5, "{nodes} nodes");
        for key in 0..100_000 {
            assert_eq!(map.first_key_value(), Some((&key, &())));
            map.remove(&key);
        }
        check(&map, &BTreeMap::new());
    }

    #[test]
    fn a_change_of_a_copy_copies_one_way_down() {
        let map: SharedMap<u32, u32> = (0..100_000).map(|key| (key, key)).collect();
        let mut copy = map.clone();
        assert_eq!(copy.nodes_apart(&map), 0);
        copy.insert(50_000, 0);
        let depth = map.root.check(true).0 + 1;
        assert_eq!((copy.nodes_apart(&map), map[&50_000]), (depth, 50_000));
    }

    #[test]
    fn it_is_written_and_read_as_any_map() {
        let model: BTreeMap<u32, String> = (0..1_000).map(|key| (key * 7, key.to_string())).collect();
        let map: SharedMap<u32, String> = model.clone().into_iter().collect();
        let config = bincode::config::standard();
        let bytes = bincode::encode_to_vec(&map, config).unwrap();
        assert_eq!(bytes, bincode::encode_to_vec(&model, config).unwrap());
        let (read, used): (SharedMap<u32, String>, usize) = bincode::decode_from_slice(&bytes, config).unwrap();
        assert_eq!((read == map, used), (true, bytes.len()));
    }
}
