//! Looking things up in pages, wherever they are.

use std::collections::BTreeSet;

use super::entry::{Creation, End, Posting, TYPES_PER_PAGE, TypeOf};
use super::page::{Entries, Entry, PageList};
use super::{Ending, EndingQuery, Unusable};
use crate::id::{Ordinal, Position, TypeId};

/// The newest endings at or after `from` that the query asks for, newest first.
pub(super) fn endings(pages: &impl PageList, from: Position, query: &EndingQuery<'_>) -> Result<Vec<Ending>, Unusable> {
    let mut found = Vec::new();
    let reached = pages.count_while(|key| query.reaches(Position(key)));
    for page in (0..reached).rev() {
        if found.len() >= query.limit {
            break;
        }
        if !query.may_match(pages.key_and_mask(page).1) {
            continue;
        }
        let entries: Vec<End> = Entries::of(&pages.raw(page)?).collect::<Result<_, _>>()?;
        for end in entries.into_iter().rev() {
            let ending = end.ending().ok_or(Unusable::Damaged("an outcome is none of ours"))?;
            let reached = ending.position >= from && query.reaches(ending.position);
            if reached && query.wants(ending.task_type, ending.outcome) && found.len() < query.limit {
                found.push(ending);
            }
        }
    }
    Ok(found)
}

/// The first position of the block that creates a task of the range.
pub(super) fn creation(pages: &impl PageList, task: Ordinal) -> Result<Option<Position>, Unusable> {
    let Some(page) = pages.count_while(|key| key <= task.0).checked_sub(1) else { return Ok(None) };
    let mut block = None;
    for entry in Entries::<Creation>::of(&pages.raw(page)?) {
        let entry = entry?;
        if entry.first_ordinal > task.0 {
            break;
        }
        block = Some(Position(entry.block));
    }
    Ok(block)
}

/// Adds the first positions of the blocks that are about a task and do not create it.
pub(super) fn postings(pages: &impl PageList, task: Ordinal, found: &mut Vec<Position>) -> Result<(), Unusable> {
    // The task's first posting may lie at the end of the page before the first that begins with it.
    let first = pages.count_while(|key| key < task.0).saturating_sub(1);
    for page in first..pages.count_while(|key| key <= task.0) {
        for entry in Entries::<Posting>::of(&pages.raw(page)?) {
            let entry = entry?;
            if entry.task > task.0 {
                break;
            }
            if entry.task == task.0 {
                found.push(Position(entry.block));
            }
        }
    }
    Ok(())
}

/// Adds those of the tasks that have an entry.
pub(super) fn among(pages: &impl PageList, tasks: &BTreeSet<Ordinal>, found: &mut BTreeSet<Ordinal>) -> Result<(), Unusable> {
    let Some((low, high)) = tasks.first().zip(tasks.last()) else { return Ok(()) };
    let first = pages.count_while(|key| key < low.0).saturating_sub(1);
    for page in first..pages.count_while(|key| key <= high.0) {
        for entry in Entries::<Posting>::of(&pages.raw(page)?) {
            found.extend(Some(Ordinal(entry?.task)).filter(|task| tasks.contains(task)));
        }
    }
    Ok(())
}

/// The page that holds the type of the task with this index in its range.
pub(super) const fn type_page(index: usize) -> usize {
    index / TYPES_PER_PAGE
}

/// The type of the task with this index in its range, from its page.
pub(super) fn type_in_page(raw: &[u8], index: usize) -> Result<Option<TypeId>, Unusable> {
    let at = index % TYPES_PER_PAGE * size_of::<TypeOf>();
    let found = raw.get(at..).and_then(|mut rest| TypeOf::read(&TypeOf::default(), &mut rest));
    found.map(TypeOf::known).ok_or(Unusable::Damaged("a page of types is too short"))
}
