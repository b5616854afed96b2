//! An ordered map: a B+ tree of counted nodes. A clone is one pointer; a change copies the nodes on its way that a clone still has.

use std::sync::Arc;

use bincode::de::{BorrowDecoder, Decoder};
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{BorrowDecode, Decode, Encode};

/// Entries for which a node has room; it splits when it gets there. More makes a search shorter and a copied node dearer: a node of the
/// largest entries here, idempotency keys, is 1.5 KiB (docs/decisions/0006-copies-of-a-state-share.md).
const NODE_ROOM: usize = 32;
/// A node with fewer entries looks for a neighbour to go together with.
const NODE_MIN: usize = NODE_ROOM / 4;
/// Most entries of two nodes that go together: not so many that the next insertion splits them again.
const MERGED_MAX: usize = NODE_ROOM / 4 * 3;

/// An ordered map whose clones share their nodes.
#[derive(Clone)]
pub struct SharedMap<K, V> {
    /// Nothing while the map is empty.
    root: Option<Arc<Node<K, V>>>,
    len: usize,
}

/// A part of the tree that is never empty; all leaves are equally deep.
#[derive(Clone)]
struct Node<K, V> {
    len: usize,
    below: Below<K, V>,
    /// `keys[..len]`, in order; what follows has no meaning. They lie in the node itself, for a search reads little else.
    ///
    /// Those of a branch are bounds: `keys[i]` is not above any key in `children[i]` and above all in `children[i - 1]`.
    keys: [K; NODE_ROOM],
}

enum Below<K, V> {
    Values(Vec<V>),
    Children(Vec<Arc<Node<K, V>>>),
}

enum Inserted<K, V> {
    Replaced(V),
    Fits,
    /// The node was full; this is its upper part.
    Split(Arc<Node<K, V>>),
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
        let mut node = self.root.as_deref()?;
        loop {
            match &node.below {
                Below::Values(values) => return values.get(node.find(key)?),
                Below::Children(children) => node = &children[node.child_of(key)],
            }
        }
    }

    /// Whether there is an entry with this key.
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The entry with the lowest key.
    pub fn first_key_value(&self) -> Option<(&K, &V)> {
        let mut node = self.root.as_deref()?;
        loop {
            match &node.below {
                Below::Values(values) => return node.keys().first().zip(values.first()),
                Below::Children(children) => node = children.first()?,
            }
        }
    }

    /// The entry with the highest key.
    pub fn last_key_value(&self) -> Option<(&K, &V)> {
        let mut node = self.root.as_deref()?;
        loop {
            match &node.below {
                Below::Values(values) => return node.keys().last().zip(values.last()),
                Below::Children(children) => node = children.last()?,
            }
        }
    }

    /// Puts a value under a key and returns the one that was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match &mut self.root {
            None => self.root = Some(Arc::new(Node::new([key], Below::Values(roomy([value]))))),
            Some(root) => match Arc::make_mut(root).insert(key, value) {
                Inserted::Replaced(old) => return Some(old),
                Inserted::Fits => {}
                Inserted::Split(upper) => {
                    let bounds = [root.keys[0], upper.keys[0]];
                    let children = roomy([Arc::clone(root), upper]);
                    *root = Arc::new(Node::new(bounds, Below::Children(children)));
                }
            },
        }
        self.len += 1;
        None
    }

    /// Takes an entry out and returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let removed = Arc::make_mut(self.root.as_mut()?).remove(key)?;
        self.len -= 1;
        self.lower();
        Some(removed)
    }

    /// Takes roots away that have nothing to choose from.
    fn lower(&mut self) {
        while let Some(root) = &self.root {
            match &root.below {
                Below::Children(children) if children.len() <= 1 => self.root = children.first().map(Arc::clone),
                Below::Values(values) if values.is_empty() => self.root = None,
                Below::Children(_) | Below::Values(_) => return,
            }
        }
    }

    /// All entries by key.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter { path: self.root.iter().map(|root| (&**root, 0)).collect() }
    }

    /// Entries from this key on.
    pub fn iter_from(&self, key: &K) -> Iter<'_, K, V> {
        let (mut path, mut next) = (Vec::new(), self.root.as_deref());
        while let Some(node) = next {
            let index = node.child_of(key);
            next = match &node.below {
                Below::Children(children) => children.get(index).map(|child| &**child),
                Below::Values(_) => None,
            };
            // The child on the way is already behind; of a leaf, everything below the key.
            let at = if next.is_some() { index + 1 } else { node.keys().partition_point(|other| other < key) };
            path.push((node, at));
        }
        Iter { path }
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

/// How many keys are not above this one. One after another, since they lie side by side: a search by halves waits for memory at each step.
fn place<K: Ord>(keys: &[K], key: &K) -> usize {
    // Moments come in order, so the place is at the end more often than anywhere else.
    if keys.last().is_some_and(|last| last <= key) {
        return keys.len();
    }
    keys.iter().position(|other| other > key).unwrap_or(keys.len())
}

impl<K: Copy + Ord, V: Clone> Node<K, V> {
    /// A node with these keys, of which there is at least one.
    fn new(keys: impl AsRef<[K]>, below: Below<K, V>) -> Node<K, V> {
        let first = keys.as_ref();
        let (len, mut keys) = (first.len(), [first[0]; NODE_ROOM]);
        keys[..len].copy_from_slice(first);
        Node { len, below, keys }
    }

    fn keys(&self) -> &[K] {
        &self.keys[..self.len]
    }

    /// The child that has this key if any has.
    fn child_of(&self, key: &K) -> usize {
        place(self.keys(), key).saturating_sub(1)
    }

    /// The place of this key if it is there.
    fn find(&self, key: &K) -> Option<usize> {
        place(self.keys(), key).checked_sub(1).filter(|index| self.keys[*index] == *key)
    }

    fn insert(&mut self, key: K, value: V) -> Inserted<K, V> {
        let child = self.child_of(&key);
        let grown = match &mut self.below {
            Below::Values(values) => {
                if self.keys[child] == key && self.len > 0 {
                    return Inserted::Replaced(std::mem::replace(&mut values[child], value));
                }
                let index = if self.keys[child] < key { child + 1 } else { child };
                values.insert(index, value);
                self.open(index, key);
                index
            }
            Below::Children(children) => {
                self.keys[child] = self.keys[child].min(key);
                match Arc::make_mut(&mut children[child]).insert(key, value) {
                    Inserted::Split(upper) => {
                        let bound = upper.keys[0];
                        children.insert(child + 1, upper);
                        self.open(child + 1, bound);
                        child + 1
                    }
                    done @ (Inserted::Replaced(_) | Inserted::Fits) => return done,
                }
            }
        };
        if self.len < NODE_ROOM { Inserted::Fits } else { Inserted::Split(self.split(cut(self.len, grown))) }
    }

    /// Puts a key between the others.
    fn open(&mut self, index: usize, key: K) {
        self.keys.copy_within(index..self.len, index + 1);
        self.keys[index] = key;
        self.len += 1;
    }

    /// Takes a key out from between the others.
    fn close(&mut self, index: usize) {
        self.keys.copy_within(index + 1..self.len, index);
        self.len -= 1;
    }

    fn split(&mut self, at: usize) -> Arc<Node<K, V>> {
        let below = match &mut self.below {
            Below::Values(values) => Below::Values(roomy(values.drain(at..))),
            Below::Children(children) => Below::Children(roomy(children.drain(at..))),
        };
        let upper = Node::new(&self.keys[at..self.len], below);
        self.len = at;
        Arc::new(upper)
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        match &mut self.below {
            Below::Values(values) => {
                let index = place(&self.keys[..self.len], key).checked_sub(1).filter(|index| self.keys[*index] == *key)?;
                let removed = values.remove(index);
                self.close(index);
                Some(removed)
            }
            Below::Children(_) => {
                let index = self.child_of(key);
                let Below::Children(children) = &mut self.below else { return None };
                let child = Arc::make_mut(&mut children[index]);
                let removed = child.remove(key)?;
                if child.len < NODE_MIN {
                    self.tidy(index);
                }
                Some(removed)
            }
        }
    }

    /// Takes an empty child away, and puts a small one together with a neighbour where both fit.
    fn tidy(&mut self, index: usize) {
        let Below::Children(children) = &mut self.below else { return };
        if children[index].len == 0 {
            children.remove(index);
            self.close(index);
            return;
        }
        let fits = |lower: &usize| children.get(lower + 1).is_some_and(|upper| children[*lower].len + upper.len <= MERGED_MAX);
        if let Some(lower) = [index.checked_sub(1), Some(index)].into_iter().flatten().find(fits) {
            let upper = Arc::unwrap_or_clone(children.remove(lower + 1));
            Arc::make_mut(&mut children[lower]).append(upper);
            self.close(lower + 1);
        }
    }

    /// Appends a node of the same depth whose keys are all above; both fit into one.
    fn append(&mut self, upper: Node<K, V>) {
        self.keys[self.len..self.len + upper.len].copy_from_slice(upper.keys());
        self.len += upper.len;
        match (&mut self.below, upper.below) {
            (Below::Values(values), Below::Values(upper)) => values.extend(upper),
            (Below::Children(children), Below::Children(upper)) => children.extend(upper),
            (Below::Values(_), Below::Children(_)) | (Below::Children(_), Below::Values(_)) => {
                unreachable!("siblings are equally deep")
            }
        }
    }
}

impl<K, V: Clone> Clone for Below<K, V> {
    fn clone(&self) -> Self {
        match self {
            Below::Values(values) => Below::Values(roomy(values.iter().cloned())),
            Below::Children(children) => Below::Children(roomy(children.iter().map(Arc::clone))),
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
            match &node.below {
                Below::Values(values) if at < node.len => return Some((&node.keys[at], &values[at])),
                Below::Children(children) if at < node.len => self.path.push((&children[at], 0)),
                Below::Values(_) | Below::Children(_) => drop(self.path.pop()),
            }
        }
    }
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        SharedMap { root: None, len: 0 }
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
        fn nodes<K, V>(node: &Arc<Node<K, V>>, into: &mut Vec<*const Node<K, V>>) {
            into.push(Arc::as_ptr(node));
            if let Below::Children(children) = &node.below {
                children.iter().for_each(|child| nodes(child, into));
            }
        }
        let (mut own, mut others) = (Vec::new(), Vec::new());
        self.root.iter().for_each(|root| nodes(root, &mut own));
        other.root.iter().for_each(|root| nodes(root, &mut others));
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
        /// Checks what the type's comments promise; returns the depth and the number of entries.
        fn check(&self) -> (usize, usize) {
            assert!(0 < self.len && self.len < NODE_ROOM, "{} entries", self.len);
            assert!(self.keys().is_sorted_by(|one, other| one < other));
            match &self.below {
                Below::Values(values) => {
                    assert_eq!(values.len(), self.len);
                    (1, self.len)
                }
                Below::Children(children) => {
                    assert_eq!(children.len(), self.len);
                    assert!(self.keys().iter().zip(children).all(|(bound, child)| *bound <= child.keys[0]));
                    let below: Vec<_> = children.iter().map(|child| child.check()).collect();
                    assert!(below.iter().all(|(depth, _)| *depth == below[0].0), "leaves are equally deep");
                    (below[0].0 + 1, below.iter().map(|(_, len)| len).sum())
                }
            }
        }
    }

    fn checked<V: Clone>(map: &SharedMap<u32, V>) -> (usize, usize) {
        map.root.as_ref().map_or((0, 0), |root| root.check())
    }

    fn check<V: Clone + PartialEq + std::fmt::Debug>(map: &SharedMap<u32, V>, model: &BTreeMap<u32, V>) {
        assert_eq!(checked(map).1, map.len());
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
        assert!(nodes < leaves + leaves / 20 + 5, "{nodes} nodes");
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
        let depth = checked(&map).0;
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
