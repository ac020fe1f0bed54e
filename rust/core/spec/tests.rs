use super::schema::RawSpec;
use super::*;

const MINIMAL: &str = r#"
schema_version = 1
name = "mine"

[rules.quantize]
y = "int(clamp(x / f32(y.scale), f32(y.dmin - y.zp), f32(y.dmax - y.zp)), half_even) + y.zp"
evidence = { status = "assumed", source = "here" }

[rules.Add]
choice = "one"

[rules.Add.alternatives.one]
y = "sat(a + b, y)"
evidence = { status = "assumed", source = "" }

[rules.Add.alternatives.two]
y = "sat(a - b, y)"
evidence = { status = "documented", source = "" }
"#;

fn error(text: &str) -> String {
    Spec::parse(text, "mine.toml").unwrap_err().to_string()
}

#[test]
fn every_embedded_spec_loads_under_the_name_of_its_file() {
    for name in embedded_names() {
        let spec = Spec::load(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(spec.name, name);
        assert_eq!(spec.hash.len(), 64);
    }
}

#[test]
fn every_file_below_specs_is_embedded() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("specs");
    let names = |dir: &str| {
        let files = std::fs::read_dir(root.join(dir)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        files.filter(|f| f.ends_with(".toml")).map(|f| format!("{dir}{f}")).collect::<Vec<_>>()
    };
    let mut files = [names(""), names("base/")].concat();
    let mut embedded: Vec<&str> = EMBEDDED.iter().map(|e| e.file).collect();
    files.sort();
    embedded.sort_unstable();
    assert_eq!(files, embedded);
}

#[test]
fn shipped_files_say_the_same_in_both_spellings() {
    for shipped in EMBEDDED {
        let toml: RawSpec = toml::from_str(shipped.toml).unwrap_or_else(|e| panic!("{}: {e}", shipped.file));
        let json: RawSpec = serde_json::from_str(shipped.json).unwrap_or_else(|e| panic!("{}: {e}", shipped.file));
        assert_eq!(format!("{json:?}"), format!("{toml:?}"), "{}", shipped.file);
    }
}

#[test]
fn the_hash_follows_the_rules_and_not_the_name() {
    let a = Spec::parse(MINIMAL, "a.toml").unwrap();
    let b = Spec::parse(&MINIMAL.replace("\"mine\"", "\"other\""), "b.toml").unwrap();
    let c = Spec::parse(&MINIMAL.replace("a + b", "b + a"), "a.toml").unwrap();
    assert_eq!(a.hash, b.hash);
    assert_ne!(a.hash, c.hash);
}

#[test]
fn assuming_swaps_the_alternative() {
    let mut spec = Spec::parse(MINIMAL, "mine.toml").unwrap();
    assert_eq!(spec.rule("Add").unwrap().bodies[0].evidence.status, Status::Assumed);
    spec.assume("add.rule", "two").unwrap();
    assert_eq!(spec.rule("Add").unwrap().bodies[0].evidence.status, Status::Documented);
    spec.assume("Add", "one").unwrap();
    assert_eq!(spec.rule("Add").unwrap().choice.as_deref(), Some("one"));
    assert!(spec.assume("Add", "three").unwrap_err().to_string().contains("one"));
    assert!(spec.assume("Ad", "one").unwrap_err().to_string().contains("did you mean 'Add'"));
    assert!(spec.assume("quantize", "x").unwrap_err().to_string().contains("no alternatives"));
}

#[test]
fn faults_are_shown_with_place_and_help() {
    let misspelt = error(&MINIMAL.replace("evidence = { status = \"assumed\", source = \"here\" }", "evidense = 1"));
    assert!(misspelt.contains("mine.toml:7") && misspelt.contains("did you mean 'evidence'"), "{misspelt}");
    let no_evidence = error(&MINIMAL.replace("evidence = { status = \"assumed\", source = \"here\" }", ""));
    assert!(no_evidence.contains("no evidence"), "{no_evidence}");
    let version = error(&MINIMAL.replace("schema_version = 1", "schema_version = 7"));
    assert!(version.contains("schema_version 7"), "{version}");
    let syntax = error("schema_version = ");
    assert!(syntax.contains("mine.toml:1"), "{syntax}");
    let program = error(&MINIMAL.replace("sat(a + b, y)", "sat(a + , y)"));
    assert!(program.contains("alternatives.one"), "{program}");
    let rule = error(&MINIMAL.replace("[rules.quantize]", "[rules.quantise]"));
    assert!(rule.contains("did you mean 'quantize'"), "{rule}");
    let choice = error(&MINIMAL.replace("choice = \"one\"", "choice = \"three\""));
    assert!(choice.contains("'three'"), "{choice}");
    let parent = error(&MINIMAL.replace("name = \"mine\"", "name = \"mine\"\nextends = [\"floot.toml\"]"));
    assert!(parent.contains("did you mean 'float.toml'"), "{parent}");
    let unknown = Spec::load("htp_v57").unwrap_err().to_string();
    assert!(unknown.contains("did you mean 'htp_v"), "{unknown}");
}

#[test]
fn a_parent_beside_the_file_comes_before_the_embedded_one() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    std::fs::create_dir(dir.path().join("base")).unwrap();
    write("mine.toml", "schema_version = 1\nname = \"mine\"\nextends = [\"base/a.toml\", \"base/movement.toml\"]\n");
    write("base/a.toml", "schema_version = 1\nname = \"base/a\"\nextends = [\"base/b.toml\"]\n");
    write("base/b.toml", &MINIMAL.replace("\"mine\"", "\"base/b\""));
    let path = dir.path().join("mine.toml").display().to_string();
    let spec = Spec::load(&path).unwrap();
    assert!(spec.rules.contains_key("Add") && spec.rules.contains_key("Reshape"));
    write("base/movement.toml", "schema_version = 1\nname = \"base/movement\"\n");
    assert!(!Spec::load(&path).unwrap().rules.contains_key("Reshape"), "the file beside wins");
}

#[test]
fn inherited_rules_are_known_no_better_than_the_limit() {
    let text = "schema_version = 1\nname = \"mine\"\nextends = [\"cmsis_nn.toml\"]\n\
        inherited_evidence = { status = \"assumed\", source = \"a relative\" }\n\
        [rules.Relu]\ny = \"sat(max(x, y.zp), y)\"\nevidence = { status = \"documented\", source = \"manual\" }\n";
    let spec = Spec::parse(text, "mine.toml").unwrap();
    let parent = Spec::load("cmsis_nn").unwrap();
    for body in spec.rules["Conv"].bodies.iter().chain(&spec.rules["Softmax"].bodies) {
        assert_eq!(body.evidence.status, Status::Assumed);
        assert!(body.evidence.source.starts_with("a relative (tests/conformance.rs"), "{}", body.evidence.source);
    }
    assert_eq!(spec.rules["Relu"].bodies[0].evidence.status, Status::Documented);
    assert_eq!(parent.rules["Conv"].bodies[0].evidence.status, Status::Executed);
}

#[test]
fn a_rule_without_arithmetic_extends_its_parents() {
    let head = "schema_version = 1\nname = \"mine\"\nextends = [\"cmsis_nn.toml\"]\n";
    let parent = Spec::load("cmsis_nn").unwrap();
    let bodies = &parent.rules["Softmax"].bodies;
    let manual = "evidence = { status = \"documented\", source = \"manual\" }";

    let restated = Spec::parse(&format!("{head}[rules.Softmax]\n{manual}\n"), "mine.toml").unwrap();
    assert_eq!(restated.hash, parent.hash, "evidence changes no bits");
    assert!(restated.rules["Softmax"].bodies.iter().all(|b| b.evidence.status == Status::Documented));

    let case = "cases = [{ when = \"x.bits == 4\", float = true }]";
    let extended = Spec::parse(&format!("{head}[rules.Softmax]\n{manual}\n{case}\n"), "mine.toml").unwrap();
    let extended = &extended.rules["Softmax"].bodies;
    assert_eq!(extended.len(), bodies.len() + 1);
    assert_eq!(extended[0].when_text.as_deref(), Some("x.bits == 4"), "tried before the parent's");
    assert_eq!(extended[0].evidence.status, Status::Documented);
    assert!(extended[1..].iter().zip(bodies).all(|(a, b)| a.evidence == b.evidence && a.when_text == b.when_text));

    let orphan = Spec::parse(&format!("{head}[rules.Einsum]\n{manual}\n"), "mine.toml").unwrap_err();
    assert!(orphan.to_string().contains("does nothing"), "{orphan}");
}

#[test]
fn a_file_that_extends_itself_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("loop.toml");
    std::fs::write(&path, "schema_version = 1\nname = \"x\"\nextends = [\"loop.toml\"]\n").unwrap();
    let error = Spec::load(path.to_str().unwrap()).unwrap_err();
    assert!(error.to_string().contains("circle"), "{error}");
}

#[test]
fn claims_are_the_files_own_and_no_part_of_the_hash() {
    let claim = r#"
[[conformance]]
family = "golden"
except = [{ id = "golden/Add/3", reason = "another tie" }, { id = "golden/Mul/*", reason = "not modelled" }]
"#;
    let plain = Spec::parse(MINIMAL, "a.toml").unwrap();
    let spec = Spec::parse(&format!("{MINIMAL}{claim}"), "a.toml").unwrap();
    assert_eq!(spec.hash, plain.hash);
    assert!(plain.claim("golden").is_none());
    let covered = |id: &str| spec.claim("golden").unwrap().except.iter().any(|e| e.covers(id));
    assert!(covered("golden/Add/3") && covered("golden/Mul/17"));
    assert!(!covered("golden/Add/33") && !covered("golden/Mu"));

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("parent.toml"), format!("{MINIMAL}{claim}")).unwrap();
    let child = "schema_version = 1\nname = \"child\"\nextends = [\"parent.toml\"]\n";
    let child = Spec::parse_beside(child, "child.toml", dir.path()).unwrap();
    assert!(child.conformance.is_empty() && child.rule("Add").is_some());

    for (from, to, text) in [
        ("another tie", " ", "without a reason"),
        ("golden/Add/3", "*", "without an id"),
        ("golden/Mul/*", "golden/Add/3", "excepted twice"),
        ("family = \"golden\"", "family = \"\"", "without a family"),
        ("except", "excepts", "did you mean 'except'"),
    ] {
        let fault = error(&format!("{MINIMAL}{}", claim.replace(from, to)));
        assert!(fault.contains(text), "{fault}");
    }
    let twice = error(&format!("{MINIMAL}{claim}\n[[conformance]]\nfamily = \"golden\"\n"));
    assert!(twice.contains("claimed twice"), "{twice}");
}

const PLACED: &str = r#"
schema_version = 1
name = "placed"
[placement]
supergroups = [["Conv", "Relu"]]
supported = [{ activation = "int8", weight = "int8" }]
evidence = { status = "documented", source = "manual" }
[placement.defaults.activations]
bitwidth = 16
[placement.ops.Conv]
per_channel = true
params.weight = { bitwidth = 4 }
"#;

#[test]
fn placement_tables_merge_key_by_key() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("placed.toml"), PLACED).unwrap();
    let path = dir.path().join("child.toml");
    let child = |body: &str| {
        let text = format!("schema_version = 1\nname = \"child\"\nextends = [\"placed.toml\"]\n{body}");
        std::fs::write(&path, text).unwrap();
        Spec::load(path.to_str().unwrap()).unwrap_or_else(|e| panic!("{e}"))
    };
    let spec =
        child("[placement.ops.Conv]\nparams.weight = { symmetric = false }\n[placement.ops.Add]\nbitwidth = 8\n");
    let conv = spec.placement.parameter("Conv", "weight");
    assert_eq!((conv.bitwidth, conv.symmetric, conv.per_channel), (Some(4), Some(false), Some(true)));
    assert_eq!(spec.placement.defaults.activations.bitwidth, Some(16));
    assert_eq!(spec.placement.supergroups().len(), 1);
    assert_eq!(spec.placement_evidence.len(), 2);
    let anew = child("[placement]\nreplace = true\nsupergroups = []\n");
    assert_eq!(anew.placement.ops.len(), 0);
    assert_eq!((anew.placement.supergroups().len(), anew.placement_evidence.len()), (0, 1));
    // Evidence changes no bits; rules do.
    let same = Spec::parse(&PLACED.replace("manual", "another"), "x.toml").unwrap();
    assert_eq!(same.hash, Spec::parse(PLACED, "y.toml").unwrap().hash);
    assert_ne!(same.hash, spec.hash);
    assert_eq!(same.status(), Status::Documented);
}

#[test]
fn wrong_placement_is_refused_with_its_place() {
    for (from, to, words) in [
        ("per_channel", "per_chanel", "did you mean 'per_channel'"),
        ("supergroups", "supergroup", "did you mean 'supergroups'"),
        ("\"int8\", weight", "\"byte\", weight", "'byte' is no number format"),
        ("bitwidth = 16", "bitwidth = 40", "40 bits"),
        ("bitwidth = 4", "bitwidth = 1", "[placement.ops.Conv.params.weight]"),
        ("[[\"Conv\", \"Relu\"]]", "[[\"Conv\"]]", "fewer than two"),
        ("per_channel = true", "constraint = { min = 0.5 }", "zero between"),
        ("per_channel = true", "constraint = { }", "finite min or max"),
        ("per_channel = true", "second_operand = []", "allows nothing"),
    ] {
        let shown = error(&PLACED.replace(from, to));
        assert!(shown.contains(words), "{to}: {shown}");
        assert!(shown.contains("mine.toml"), "{shown}");
    }
}
