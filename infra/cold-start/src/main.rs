//! Measures a cold start of each function beside bare ones, in the same run: from the start of the process until it
//! asks the Runtime API for work, until its first answer, how much memory it has then, and how large it is.
//!
//! The functions are their own binaries, against a Runtime API and a Secrets Manager of this program's own and the
//! DynamoDB and the sandboxes of `berth local`. Programs take turns, so that what else runs on the machine slows all of
//! them alike; the medians count. It ends with 1 where a function is over a budget.

#![expect(
    clippy::indexing_slicing,
    reason = "a member that JSON does not have is null, and those set here are of objects"
)]

mod aws;
mod budget;
mod program;
mod stack;

use std::process::ExitCode;

use clap::Parser;

use crate::aws::Aws;
use crate::budget::{Bare, Verdict};
use crate::program::{BARE, Measured, Program, median};
use crate::stack::Stack;

/// What went wrong, in a sentence.
type Failure = Box<dyn std::error::Error>;

/// Measures the cold start of the functions.
#[derive(Debug, Parser)]
struct Arguments {
    /// The functions to measure, comma-separated; all where none is named.
    #[arg(long, value_delimiter = ',')]
    functions: Vec<String>,
    /// The profile that they are built with. Only a release says how they start in AWS.
    #[arg(long, default_value = "release")]
    profile: String,
    /// How often each is started.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Measures what is built already.
    #[arg(long)]
    no_build: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures and prints; whether every budget holds.
fn run(arguments: &Arguments) -> Result<bool, Failure> {
    let functions = if arguments.functions.is_empty() {
        program::functions()?
    } else {
        arguments.functions.clone()
    };
    if !arguments.no_build {
        program::build(&functions, &arguments.profile)?;
    }
    let stack = Stack::start(&arguments.profile)?;
    let aws = Aws::new(stack.secrets()?)?;
    let variables = stack.variables();
    let programs = BARE
        .into_iter()
        .chain(functions.iter().map(String::as_str))
        .map(|name| Program::of(name, &arguments.profile))
        .collect::<Result<Vec<_>, _>>()?;

    // The first start of each brings its file into memory and is not counted.
    let mut measured: Vec<Vec<Measured>> = vec![Vec::new(); programs.len()];
    for run in 0..=arguments.runs {
        eprint!("\rrun {run} of {} ", arguments.runs);
        for (program, measured) in programs.iter().zip(&mut measured) {
            let once = program.start_once(&aws, &variables)?;
            if run > 0 {
                measured.push(once);
            }
        }
    }
    eprintln!();
    let medians: Vec<Measured> = measured.iter().map(|runs| median(runs)).collect();
    let [hello, with_clients, that_calls, ..] = medians.as_slice() else {
        return Err("there is nothing to measure against".into());
    };
    let bare = Bare {
        start: hello.start,
        start_with_clients: with_clients.start,
        start_that_calls: that_calls.start,
    };
    let verdicts: Vec<Verdict> = programs
        .iter()
        .zip(&medians)
        .map(|(program, measured)| budget::judge(program, measured, &bare))
        .collect();
    println!("{}", budget::table(&verdicts));
    for broken in verdicts.iter().flat_map(Verdict::broken) {
        println!("{broken}");
    }
    Ok(verdicts.iter().all(|verdict| verdict.broken().is_empty()))
}
