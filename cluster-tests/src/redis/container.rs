//! Redis in a container.

use std::future::Future;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use testcontainers::bollard::Docker;
use testcontainers::bollard::models::PortBinding;
use testcontainers::core::IntoContainerPort as _;
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{ContainerAsync, GenericImage, ImageExt as _};
use tokio::runtime::Runtime;

/// An engine that does not answer by then counts as none.
const ENGINE_LIMIT: Duration = Duration::from_secs(10);

/// A container. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Container {
    engine: Docker,
    /// There until it is dropped.
    container: Option<ContainerAsync<GenericImage>>,
}

/// The Docker engine, if one answers.
pub(super) fn engine() -> Option<Docker> {
    let engine = Docker::connect_with_defaults().ok()?;
    let asked = engine.clone();
    let answered = wait(async move { tokio::time::timeout(ENGINE_LIMIT, asked.ping()).await });
    matches!(answered, Ok(Ok(_))).then_some(engine)
}

impl Container {
    pub(super) fn start(engine: Docker, port: u16, arguments: &[String]) -> Self {
        let image = image();
        let (name, tag) = image.rsplit_once(':').unwrap_or((&image, "latest"));
        let request = GenericImage::new(name, tag)
            .with_exposed_port(6379.tcp())
            .with_cmd(arguments.to_vec())
            // Who started it: `tests/run` removes what a killed test left behind.
            .with_label("axum-io-session.test", std::process::id().to_string())
            .with_host_config_modifier(move |host| {
                // Without this the port is open to the network; without a fixed number it is
                // another one after each start.
                host.publish_all_ports = Some(false);
                let binding = PortBinding {
                    host_ip: Some("127.0.0.1".into()),
                    host_port: Some(port.to_string()),
                };
                host.port_bindings = Some([("6379/tcp".into(), Some(vec![binding]))].into());
            });
        let container = wait(async move { request.start().await })
            .unwrap_or_else(|error| panic!("no container of {image} can be started: {error}"));
        Self { engine, container: Some(container) }
    }

    fn container(&self) -> &ContainerAsync<GenericImage> {
        self.container.as_ref().expect("it is there until it is dropped")
    }

    pub(super) fn start_again(&self) {
        wait(self.container().start()).expect("the container starts");
    }

    pub(super) fn stop(&self) {
        wait(self.container().stop_with_timeout(Some(20))).expect("the container stops");
    }

    pub(super) fn kill(&self) {
        wait(self.engine.kill_container(self.container().id(), None)).expect("the container ran");
    }

    pub(super) fn pause(&self) {
        wait(self.container().pause()).expect("the container pauses");
    }

    pub(super) fn resume(&self) {
        wait(self.container().unpause()).expect("the container goes on");
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Its own `drop` needs a runtime, which a plain test has not.
        if let Some(container) = self.container.take()
            && let Err(error) = wait(container.rm())
        {
            eprintln!("a container is left behind: {error}");
        }
    }
}

/// The name of the image, which is made if it is missing.
fn image() -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("redis-image");
    let output = Command::new(&script)
        .output()
        .unwrap_or_else(|error| panic!("{} can't be run: {error}", script.display()));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "there is no image to start Redis from: {said}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Waits for an answer of the engine, in tests with a runtime and in tests without.
fn wait<F>(future: F) -> F::Output
where
    F: Future + Send,
    F::Output: Send,
{
    // Connections belong to the runtime that opened them: there is one for all.
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime")
    });
    // A thread of its own: a runtime must not wait inside another one.
    std::thread::scope(|scope| scope.spawn(|| runtime.block_on(future)).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
