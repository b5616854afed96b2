//! What a replica of a workload asks for, where its manifest is among the files.

use std::collections::BTreeMap;

use ergate::events::resources::Asked;

use super::fields::Fields;
use super::object::Object;
use super::refusal::Refusal;

/// Kinds whose pods are the replicas of a pool.
const KINDS: [&str; 2] = ["Deployment", "StatefulSet"];

/// What replicas ask for, by the kind, the namespace and the name of their workload.
#[derive(Debug, Default)]
pub(super) struct Workloads(BTreeMap<(String, String, String), Asked>);

impl Workloads {
    /// Notes what an object says, if it is such a workload.
    pub(super) fn note(&mut self, object: &Object<'_>) -> Result<(), Refusal> {
        if KINDS.contains(&object.kind) {
            let key = (object.kind.to_owned(), object.namespace.clone(), object.name.to_owned());
            self.0.insert(key, asked(&object.fields)?);
        }
        Ok(())
    }

    /// What a replica asks for. A target without a kind is looked for among all of them.
    pub(super) fn asked(&self, kind: Option<&str>, namespace: &str, name: &str) -> Option<Asked> {
        let kinds = KINDS.into_iter().filter(|known| kind.is_none_or(|kind| kind == *known));
        kinds.filter_map(|kind| self.0.get(&(kind.to_owned(), namespace.to_owned(), name.to_owned()))).copied().next()
    }
}

/// What the pods of a workload ask for: what the pod says itself, or its containers together, as far as each of them says it.
fn asked(object: &Fields<'_>) -> Result<Asked, Refusal> {
    let Some(pod) = path(object, &["spec", "template", "spec"])? else { return Ok(Asked::default()) };
    let mut containers = pod.objects("containers")?;
    for container in pod.objects("initContainers")? {
        // One that goes on beside the others.
        if container.text("restartPolicy")? == Some("Always") {
            containers.push(container);
        }
    }
    let sum = |resource| {
        if let Some(own) = of(&pod, resource)? {
            return Ok(Some(own));
        }
        let mut sum = (!containers.is_empty()).then_some(0_i64);
        for container in &containers {
            sum = sum.zip(of(container, resource)?).map(|(sum, more)| sum.saturating_add(more));
        }
        Ok(sum)
    };
    let (cpu, memory) = (sum("cpu")?, sum("memory")?);
    let amount =
        |milli: Option<i64>, unit: i64| milli.and_then(|milli| u64::try_from(milli / unit).ok()).filter(|amount| *amount > 0);
    Ok(Asked { cpu_milli: amount(cpu, 1), memory_bytes: amount(memory, 1_000) })
}

/// What a container, or a pod itself, asks for of a resource: its request, which is its limit where it says no other.
fn of(fields: &Fields<'_>, resource: &str) -> Result<Option<i64>, Refusal> {
    for part in ["requests", "limits"] {
        if let Some(part) = path(fields, &["resources", part])?
            && let Some(milli) = part.milli(resource)?
        {
            return Ok(Some(milli));
        }
    }
    Ok(None)
}

fn path<'a>(fields: &Fields<'a>, keys: &[&str]) -> Result<Option<Fields<'a>>, Refusal> {
    let mut found: Option<Fields<'a>> = None;
    for key in keys {
        found = found.as_ref().unwrap_or(fields).object(key)?;
        if found.is_none() {
            return Ok(None);
        }
    }
    Ok(found)
}
