//! Compares sessions of this crate with those of others, side by side on one machine.
//!
//! `benches/run` builds and starts it. What it measures, and how: `docs/PERFORMANCE.md`.

mod chart;
mod contract;
mod figures;
mod load;
mod machine;
mod markdown;
mod options;
mod plan;
mod processes;
mod redis_info;
mod samples;
mod sockets;
mod summary;
mod wrk;

use std::path::Path;

use figures::Results;
use options::Options;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Failure> = std::result::Result<T, E>;

fn main() -> Result<()> {
    let Some(options) = Options::parse(std::env::args().skip(1))? else {
        print!("{}", options::HELP);
        return Ok(());
    };
    let results = samples::measure(&options)?;
    write(&options, &results)
}

fn write(options: &Options, results: &Results) -> Result<()> {
    let table = markdown::tables(results);
    let svg = chart::draw(results);
    println!("\n{table}");
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = here.join("target");
    std::fs::write(target.join("compare.json"), serde_json::to_string_pretty(results)?)?;
    std::fs::write(target.join("compare.svg"), &svg)?;
    println!("written: benches/target/compare.json and benches/target/compare.svg");
    if options.docs {
        let docs = here.join("../docs");
        let page = docs.join("PERFORMANCE.md");
        let text = std::fs::read_to_string(&page)?;
        std::fs::write(page, markdown::put_into(&text, &table)?)?;
        std::fs::write(docs.join("performance.svg"), svg)?;
        println!("rewritten: the tables of docs/PERFORMANCE.md, and docs/performance.svg");
    }
    Ok(())
}
