//! The first messages of a connection, as the store reads them, and as a client reads the answer.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use plasmon_protocol::{
    codec::Codec,
    message::{Attached, ChildAdded, Failed, Hello, MAGIC, Message, Role, VERSION, Welcome, hello_version},
};

#[derive(Arbitrary, Debug)]
struct Greeting {
    magic: Option<[u8; 8]>,
    version: Option<u32>,
    role: MadeRole,
    behind: Vec<u8>,
    cut: Option<u8>,
    answer: Vec<u8>,
}

#[derive(Arbitrary, Debug)]
enum MadeRole {
    Lifeline,
    Requests([u8; 16]),
    Child([u8; 16], u32),
    Bytes(Vec<u8>),
}

fuzz_target!(|greeting: Greeting| {
    let (magic, version) = (greeting.magic.unwrap_or(MAGIC), greeting.version.unwrap_or(VERSION));
    let role = match &greeting.role {
        MadeRole::Lifeline => Ok(Role::Lifeline),
        &MadeRole::Requests(token) => Ok(Role::Requests { token }),
        &MadeRole::Child(token, regions) => Ok(Role::Child { token, regions }),
        MadeRole::Bytes(bytes) => Err(bytes),
    };
    let mut body = Vec::new();
    match &role {
        Ok(role) => Hello { magic, version, role: role.clone() }.encode(&mut body),
        Err(bytes) => {
            body.extend_from_slice(&magic);
            body.extend_from_slice(&version.to_le_bytes());
            body.extend_from_slice(bytes);
        }
    }
    body.extend_from_slice(&greeting.behind);
    body.truncate(greeting.cut.map_or(body.len(), usize::from));
    // Whoever begins as a client of any version does is told versions, whatever else he says.
    if body.len() >= 12 && magic == MAGIC {
        assert_eq!(hello_version(Hello::KIND, &body), Some(version));
    }
    let whole = greeting.behind.is_empty() && greeting.cut.is_none();
    match Hello::parse(body.clone().into()) {
        Ok(hello) => {
            let mut again = Vec::new();
            hello.encode(&mut again);
            assert_eq!(again, body);
        }
        Err(error) => assert!(!(whole && role.is_ok()), "{error}"),
    }
    answer::<Welcome>(&greeting.answer);
    answer::<Attached>(&greeting.answer);
    answer::<ChildAdded>(&greeting.answer);
    answer::<Failed>(&greeting.answer);
});

fn answer<M: Message>(body: &[u8]) {
    if let Ok(message) = M::parse(body.to_vec().into()) {
        let mut again = Vec::new();
        message.encode(&mut again);
        assert_eq!(again, body);
    }
}
