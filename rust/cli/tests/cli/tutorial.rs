//! `specs/TUTORIAL.md`: its target is written, its commands run, and what they print is what the page says.

use super::{Finished, Sandbox, model, npy, sample};
use std::path::Path;

/// The vectors that ship with the repository, as the page names them.
const VECTORS: &str = "tests/vectors";
/// The page's deliberate mistake.
const MISTAKE: &str = "sed '/^shr/s/half_away/half_up/' my_npu.toml > wrong.toml";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the command line stands in rust/cli")
}

fn page() -> String {
    let text = std::fs::read_to_string(repository().join("specs/TUTORIAL.md")).expect("the page can be read");
    text.replace("\r\n", "\n")
}

/// The lines of all blocks in one language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let mut inside = false;
    let mut out = Vec::new();
    for line in page.lines() {
        match line.strip_prefix("```") {
            Some(rest) => inside = !inside && rest == language,
            None if inside => out.push(line),
            None => {}
        }
    }
    out
}

/// A line with single blanks. How many cases there are depends on the selection of vectors: where all must be equal, the exit code
/// says so.
fn squeezed(line: &str) -> String {
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.contains(" cases equal") {
        true => line.replace(|c: char| c.is_ascii_digit(), ""),
        false => line,
    }
}

/// Checks that the lines stand in the output: one behind the other, or after any lines where the page has `…`.
fn assert_prints(expected: &[&str], printed: &str, command: &str) {
    let mut lines = printed.lines().map(squeezed).filter(|l| !l.is_empty());
    let mut any = false;
    for wanted in expected {
        if *wanted == "…" {
            any = true;
            continue;
        }
        let wanted = &squeezed(wanted);
        let found = if any { lines.find(|l| l == wanted) } else { lines.next().filter(|l| l == wanted) };
        assert!(found.is_some(), "'{wanted}' is not where the page says under `{command}`:\n{printed}");
        any = false;
    }
    assert!(any || lines.next().is_none(), "`{command}` prints more than the page says:\n{printed}");
}

fn run(sandbox: &Sandbox, command: &str) -> Finished {
    let vectors = repository().join(VECTORS).display().to_string();
    let words = command.split_whitespace().skip(1);
    sandbox
        .run_words(&words.map(|word| if word == VECTORS { vectors.clone() } else { word.into() }).collect::<Vec<_>>())
}

#[test]
fn the_target_is_short_and_its_commands_print_what_the_page_says() {
    let page = page();
    let toml = blocks(&page, "toml");
    assert!(toml.len() < 60, "{} lines", toml.len());
    assert!(page.contains(&format!("(`my_npu.toml`, {} lines)", toml.len())), "the page counts its lines");
    let sandbox = Sandbox::new();
    sandbox.write("my_npu.toml", toml.join("\n"));
    sandbox.write("x.npy", npy(&[1, 3, 6, 6], &sample(0)));
    sandbox.write("residual.qdq.onnx", std::fs::read(model("residual.qdq.onnx")).unwrap());
    let console = blocks(&page, "console");
    let mut commands = 0;
    for (i, line) in console.iter().enumerate() {
        let Some(command) = line.strip_prefix("$ ") else { continue };
        let expected: Vec<&str> = console[i + 1..].iter().copied().take_while(|l| !l.starts_with("$ ")).collect();
        commands += 1;
        if command == MISTAKE {
            let wrong = toml
                .iter()
                .map(|l| if l.starts_with("shr") { l.replace("half_away", "half_up") } else { l.to_string() });
            let wrong = wrong.collect::<Vec<_>>().join("\n");
            assert_ne!(wrong, toml.join("\n"));
            sandbox.write("wrong.toml", wrong);
            continue;
        }
        assert!(command.starts_with("nputwin "), "{command}");
        let done = run(&sandbox, command);
        assert_eq!(done.code, i32::from(command.contains("wrong.toml")), "`{command}`: {}{}", done.stdout, done.stderr);
        assert_prints(&expected, &done.stdout, command);
    }
    assert_eq!(commands, 8);
}

#[test]
fn the_second_chip_of_the_family_begins_as_the_page_says() {
    let page = page();
    let sandbox = Sandbox::new();
    sandbox.write("my_npu.toml", blocks(&page, "toml").join("\n"));
    let command = "spec new my_npu2 --extends my_npu.toml";
    assert!(page.contains(command));
    sandbox.run(command).succeeds();
    assert_eq!(sandbox.run("spec lint my_npu2.toml").code, 0);
    assert_eq!(sandbox.run("spec diff my_npu.toml my_npu2.toml").code, 0);
}
