//! One call again and again, for `scripts/count`: `counted SOCKET CALL TIMES`. What it needs is learned first.

use plasmon::{Brain, Object};
use std::hint::black_box;

fn main() -> plasmon::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, call, times] = arguments.as_slice() else {
        panic!("counted SOCKET CALL TIMES");
    };
    let times: u32 = times.parse().expect("a number of times");
    let brain = Brain::builder().path(socket).connect()?;
    let (kibibyte, large) = (vec![7_u8; 1 << 10], vec![7_u8; 1 << 17]);
    for number in 0..100 {
        brain.learn(&format!("name {number}"), &kibibyte)?;
    }
    brain.learn("number", &7_i64)?;
    brain.learn("large", &large)?;
    let mut call: Box<dyn FnMut() -> plasmon::Result<()>> = match call.as_str() {
        "look-up" => Box::new(|| brain.exists(black_box("name 50")).map(|found| assert!(found))),
        "recall-number" => {
            Box::new(|| brain.recall(black_box("number")).map(|found: i64| assert_eq!(found, 7)))
        }
        "recall-object" => Box::new(|| {
            black_box(brain.recall::<Object>(black_box("large"))?);
            Ok(())
        }),
        "learn-number" => Box::new(|| brain.learn(black_box("number"), &7_i64).map(|_| ())),
        "learn-1KiB" => Box::new(|| brain.learn(black_box("name 50"), &kibibyte).map(|_| ())),
        "learn-128KiB" => Box::new(|| brain.learn(black_box("large"), &large).map(|_| ())),
        "learn-and-forget" => Box::new(|| {
            brain.learn(black_box("new"), &kibibyte)?;
            assert!(brain.forget(black_box("new"))?);
            Ok(())
        }),
        other => panic!("there is no call {other}"),
    };
    (0..times).try_for_each(|_| call())
}
