//! Registration: by the program and by crates, what is refused at the start, and the program of the examples.

use std::sync::Arc;
use std::time::Duration;

use ergate::generate::{EVERY_MIN, GENERATORS_MAX};
use ergate::plugins::PluginError;
use ergate::{Builder, EventObserver, EventObserverFactory, ExecutorFactory, FactoryError, Runtime, StartError, TaskFunction};
use serde_json::json;

use crate::process::block_on;
use crate::support::{Jobs, PATIENCE, requests, until, work};

/// An executor and an observer.
struct Of(&'static str);

impl ExecutorFactory for Of {
    fn task_type(&self) -> &str {
        self.0
    }

    fn create(&self) -> Result<Arc<dyn TaskFunction>, FactoryError> {
        Ok(ergate::function(work))
    }
}

impl EventObserver for Of {}

impl EventObserverFactory for Of {
    fn task_type(&self) -> &str {
        self.0
    }

    fn create(&self) -> Result<Box<dyn EventObserver>, FactoryError> {
        if self.0 == "broken" { Err("no socket".into()) } else { Ok(Box::new(Of(self.0))) }
    }
}

fn memory() -> Builder {
    Runtime::builder().memory().task("job", work)
}

async fn refused(builder: Builder) -> String {
    let error = builder.start().await.err().unwrap();
    let chain = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[test]
fn the_same_name_twice_is_refused_and_named_whichever_way_it_was_registered() {
    block_on(PATIENCE, async {
        let twice =
            |kind| format!("the task type \"job\" has two {kind}s; register one, or give one of them a task type of its own");
        let jobs = || Jobs::many(1).maker();
        assert_eq!(refused(memory().generator(jobs()).generator(jobs())).await, twice("generator"));
        assert_eq!(refused(memory().observer(Of("job")).observer(Of("job"))).await, twice("observer"));
        let executor = "the task type \"report\" is registered twice; give one of the two another name";
        assert_eq!(refused(Runtime::builder().memory().plugins().plugins()).await, executor);
        assert_eq!(refused(crate::example::program().memory().executor(Of("report"))).await, executor);
        assert_eq!(refused(crate::example::program().memory().task("report", work)).await, executor);
        let observer = refused(crate::example::program().memory().observer(Of("report"))).await;
        assert!(observer.starts_with("the task type \"report\" has two observers"), "{observer}");
    });
}

#[test]
fn a_plug_in_that_cannot_be_used_stops_the_start_and_says_why() {
    block_on(PATIENCE, async {
        let jobs = || Jobs::many(1);
        let nowhere = refused(Runtime::builder().memory().task("other", work).generator(jobs().maker())).await;
        assert!(nowhere.contains("a generator of the task type \"job\", and nothing runs that"), "{nowhere}");
        assert!(nowhere.ends_with("there are other"), "{nowhere}");
        let nowhere = refused(memory().observer(Of("jbo"))).await;
        assert!(nowhere.contains("an observer of the task type \"jbo\"") && nowhere.ends_with("there are job"), "{nowhere}");
        let unused = refused(memory().configuration("jbo", json!(1)).generator(jobs().maker())).await;
        assert!(unused.contains("a generator of the task type \"jbo\", and no such generator"), "{unused}");
        let broken = refused(Runtime::builder().memory().task("broken", work).observer(Of("broken"))).await;
        assert_eq!(broken, "the observer of the task type \"broken\" cannot be used: no socket");
        let init = Jobs { init: Arc::new(|_| Err("no share".into())), ..jobs() };
        assert_eq!(
            refused(memory().generator(init.maker())).await,
            "the generator of the task type \"job\" cannot be used: no share"
        );
        let panics = Jobs { init: Arc::new(|_| panic!("told to")), ..jobs() };
        assert!(refused(memory().generator(panics.maker())).await.ends_with("it panicked: told to"));
        let hasty = Jobs { every: EVERY_MIN - Duration::from_micros(1), ..jobs() };
        assert!(refused(memory().generator(hasty.maker())).await.ends_with("it may be from 100ms to 31622400s"));
        let many = (0..=GENERATORS_MAX).fold(memory(), |builder, _| builder.generator(jobs().maker()));
        let many = many.start().await.err().unwrap();
        assert!(matches!(many, StartError::Plugin(PluginError::TooMany { count: 65, max: 64, .. })), "{many}");
    });
}

#[test]
fn the_program_of_the_examples_makes_each_report_once() {
    block_on(PATIENCE, async {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let runtime = crate::example::program().data(dir.path()).start().await.unwrap();
            let asked = || ["accepted", "duplicate"].map(|outcome| report_batches(&runtime, outcome)).iter().sum::<f64>();
            until("a batch", || asked() >= 1.0 && runtime.live() == 0).await;
            let reports = requests(&runtime);
            let hours: std::collections::BTreeSet<_> =
                reports.iter().map(|(_, key)| key.rsplit_once('/').unwrap().0.to_owned()).collect();
            assert_eq!(reports.len(), 2 * hours.len(), "{reports:?}");
            assert!(reports.iter().any(|(payload, _)| payload.contains("globex")), "{reports:?}");
            runtime.shutdown().await.unwrap();
        }
    });
}

fn report_batches(runtime: &Runtime, outcome: &str) -> f64 {
    let labels = [("generator", "report"), ("outcome", outcome)];
    crate::exposition::Scrape::read(&runtime.metrics().text()).value("ergate_generator_batches_total", &labels)
}

#[test]
fn the_page_about_plug_ins_has_the_code_of_the_example() {
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let example = squeeze(include_str!("../../examples/plugins.rs"));
    let page = include_str!("../../docs/plugins.md");
    let blocks: Vec<_> = page.split("```rust\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    for block in &blocks {
        assert!(example.contains(&squeeze(block)), "not in examples/plugins.rs:\n{block}");
    }
    assert!(blocks.len() >= 4, "{}", blocks.len());
}
