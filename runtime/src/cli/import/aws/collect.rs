//! What files of AWS hold: scalable targets, scaling policies and alarms, as requests, as answers and in templates.

use super::alarm::{self, Alarm};
use super::template;
use crate::cli::import::fields::Fields;
use crate::cli::import::plan::{PassedOver, WORKLOADS_MAX};
use crate::cli::import::refusal::Refusal;
use crate::cli::import::yaml::{Document, Node};

/// A policy.
#[derive(Debug)]
pub(super) struct Given<'a> {
    pub(super) file: &'a str,
    document: usize,
    pub(super) name: String,
    /// What it is called inside a template.
    pub(super) logical: Option<&'a str>,
    /// What it sizes: a resource id, or the name of a target in a template.
    sizes: Option<String>,
    pub(super) fields: Fields<'a>,
    /// Whether it is only the configuration of a target tracking policy.
    pub(super) is_bare: bool,
}

/// A scalable target.
#[derive(Debug)]
pub(super) struct Target<'a> {
    file: &'a str,
    document: usize,
    logical: Option<&'a str>,
    resource: String,
    pub(super) fields: Fields<'a>,
}

/// Everything that was found.
#[derive(Debug, Default)]
pub(super) struct Found<'a> {
    policies: Vec<Given<'a>>,
    targets: Vec<Target<'a>>,
    pub(super) alarms: Vec<Alarm<'a>>,
    /// Names of ECS services, and what they are called inside a template.
    services: Vec<(String, Option<&'a str>)>,
    pub(super) passed_over: Vec<PassedOver>,
}

impl<'a> Found<'a> {
    /// Takes what a document holds.
    pub(super) fn document(&mut self, file: &'a str, document: &'a Document) -> Result<(), Refusal> {
        self.node(&document.root, (file, document.number))
    }

    fn pass_over(&mut self, object: String, file: &str, line: usize, hint: Option<&str>) {
        self.passed_over.push(PassedOver { object, file: file.to_owned(), line, hint: hint.map(str::to_owned) });
    }

    fn node(&mut self, node: &'a Node, place: (&'a str, usize)) -> Result<(), Refusal> {
        if let Some(list) = node.list() {
            return list.iter().try_for_each(|item| self.node(item, place));
        }
        let fields = Fields::of(node, "", true)?;
        if let Some(resources) = node.get("Resources") {
            return self.template(resources, place);
        }
        // What describe-scaling-policies and its like answer.
        for key in ["ScalingPolicies", "ScalableTargets", "MetricAlarms"] {
            if let Some(list) = node.get(key).and_then(Node::list) {
                return list.iter().try_for_each(|item| self.node(item, place));
            }
        }
        let has = |key: &str| fields.get(key).is_some();
        if has("TargetTrackingScalingPolicyConfiguration")
            || has("StepScalingPolicyConfiguration")
            || has("PredictiveScalingPolicyConfiguration")
            || has("PolicyType")
        {
            self.policy(node, place, None, "")
        } else if has("MinCapacity") || has("MaxCapacity") {
            self.target(node, place, None, "")
        } else if has("ComparisonOperator") {
            self.alarms.push(alarm::read(Fields::of(node, "", true)?)?);
            Ok(())
        } else if has("TargetValue") {
            let (file, document) = place;
            let given = Given { file, document, name: "policy".to_owned(), logical: None, sizes: None, fields, is_bare: true };
            self.policies.push(given);
            Ok(())
        } else if let Some(name) = fields.get("ServiceName").and_then(Node::text) {
            self.services.push((name.to_owned(), None));
            self.pass_over(format!("ECS service {name}"), place.0, node.line, None);
            Ok(())
        } else {
            let kind = node.get("kind").and_then(Node::text);
            let hint = kind.map(|_| "`ergate import hpa` and `ergate import keda` read objects of Kubernetes");
            self.pass_over(kind.unwrap_or("an object without a known field").to_owned(), place.0, node.line, hint);
            Ok(())
        }
    }

    fn template(&mut self, resources: &'a Node, place: (&'a str, usize)) -> Result<(), Refusal> {
        for entry in resources.entries().unwrap_or_default() {
            let (logical, resource) = (&*entry.key, &entry.value);
            let kind = resource.get("Type").and_then(Node::text).unwrap_or_default();
            let Some(properties) = resource.get("Properties") else { continue };
            let path = format!("Resources.{logical}.Properties");
            match kind {
                "AWS::ApplicationAutoScaling::ScalableTarget" => self.target(properties, place, Some(logical), &path)?,
                "AWS::ApplicationAutoScaling::ScalingPolicy" => self.policy(properties, place, Some(logical), &path)?,
                "AWS::CloudWatch::Alarm" => self.alarms.push(alarm::read(Fields::of(properties, &path, true)?)?),
                other => {
                    let hint = (other == "AWS::AutoScaling::ScalingPolicy")
                        .then_some("it sizes instances of EC2; policies of Application Auto Scaling are read");
                    if other == "AWS::ECS::Service" {
                        let name = properties.get("ServiceName").and_then(template::text).unwrap_or_else(|| logical.to_owned());
                        self.services.push((name, Some(logical)));
                    }
                    self.pass_over(format!("{other} {logical}"), place.0, resource.line, hint);
                }
            }
        }
        Ok(())
    }

    fn policy(
        &mut self,
        node: &'a Node,
        (file, document): (&'a str, usize),
        logical: Option<&'a str>,
        path: &str,
    ) -> Result<(), Refusal> {
        let fields = Fields::of(node, path, true)?;
        let text = |key: &str| fields.get(key).and_then(template::text);
        let name = text("PolicyName").or(logical.map(str::to_owned));
        let name = fields.need("PolicyName", name)?;
        let sizes = text("ResourceId").or(text("ScalingTargetId"));
        self.policies.push(Given { file, document, name, logical, sizes, fields, is_bare: false });
        Ok(())
    }

    fn target(
        &mut self,
        node: &'a Node,
        (file, document): (&'a str, usize),
        logical: Option<&'a str>,
        path: &str,
    ) -> Result<(), Refusal> {
        let fields = Fields::of(node, path, true)?;
        let resource = fields.need("ResourceId", fields.get("ResourceId").and_then(template::text))?;
        self.targets.push(Target { file, document, logical, resource, fields });
        Ok(())
    }

    /// The policies by what they size, in the order in which they stand.
    pub(super) fn workloads(&self) -> Result<Vec<(String, Vec<&Given<'a>>)>, Refusal> {
        for count in [self.policies.len(), self.targets.len(), self.alarms.len()] {
            if count > WORKLOADS_MAX {
                let reason = format!("there are {count} policies, targets or alarms; at most {WORKLOADS_MAX} are read at once");
                return Err(Refusal::at(0, reason));
            }
        }
        let mut all = Vec::<(String, Vec<&Given<'a>>)>::new();
        for given in &self.policies {
            let workload = self.workload(given);
            match all.iter_mut().find(|(known, _)| *known == workload) {
                Some((_, policies)) => policies.push(given),
                None => all.push((workload, vec![given])),
            }
        }
        Ok(all)
    }

    /// What a policy sizes: the last part of its resource id, the only service there is, or itself.
    fn workload(&self, given: &Given<'a>) -> String {
        if let Some(target) = self.named_target(given) {
            return self.service(&target.resource);
        }
        match (&given.sizes, self.targets.as_slice(), self.services.as_slice()) {
            (Some(sizes), ..) => self.service(sizes),
            (None, [target], _) => self.service(&target.resource),
            (None, [], [(service, _)]) => service.clone(),
            (None, ..) => given.name.clone(),
        }
    }

    /// The service of a resource: its last part, by the name that the service has in a template.
    fn service(&self, resource: &str) -> String {
        let last = last_part(resource);
        let named = self.services.iter().find(|(_, logical)| *logical == Some(last.as_str()));
        named.map_or(last, |(name, _)| name.clone())
    }

    /// The target that a policy names.
    fn named_target(&self, given: &Given<'a>) -> Option<&Target<'a>> {
        let sizes = given.sizes.as_deref()?;
        self.targets.iter().find(|target| target.resource == sizes || target.logical == Some(sizes))
    }

    /// The target of a policy of this workload.
    pub(super) fn target_of(&self, given: &Given<'a>, workload: &str) -> Option<&Target<'a>> {
        self.named_target(given).or_else(|| self.targets.iter().find(|target| self.service(&target.resource) == workload))
    }
}

impl Given<'_> {
    pub(super) fn place(&self, refusal: Refusal) -> Refusal {
        refusal.in_document(self.document).in_file(self.file)
    }
}

impl Target<'_> {
    pub(super) fn place(&self, refusal: Refusal) -> Refusal {
        refusal.in_document(self.document).in_file(self.file)
    }
}

/// `api` of `service/main/api` and of `service/${Cluster}/${Api.Name}`.
fn last_part(resource: &str) -> String {
    let last = resource.rsplit('/').find(|part| !part.is_empty()).unwrap_or(resource);
    let last = last.trim_start_matches("${").trim_end_matches('}');
    last.strip_suffix(".Name").unwrap_or(last).to_owned()
}
