use super::*;
use serde_json::json;

fn sample() -> Value {
    json!({
        "ID": "abc",
        "State": { "Status": "exited", "ExitCode": 7, "Running": false },
        "Env": ["A=1", "B=2"],
        "Labels": { "x": "y" },
        "List": [{ "Name": "first" }],
        "None": null,
    })
}

fn render(text: &str) -> Result<String, TemplateError> {
    Template::parse(text)?.render(&sample())
}

#[test]
fn fields_and_functions() {
    for (template, expected) in [
        ("{{.ID}}\t{{.State.ExitCode}}", "abc\t7"),
        ("{{ .State.Running }}", "false"),
        ("{{json .Env}}", r#"["A=1","B=2"]"#),
        ("{{.Env}}", "[A=1 B=2]"),
        ("{{.Labels}}", "map[x:y]"),
        ("{{.ID | upper | lower | title}}", "Abc"),
        ("{{join .Env \", \"}}", "A=1, B=2"),
        ("{{index .Env 1}}{{index .Labels \"x\"}}", "B=2y"),
        ("{{len .Env}}", "2"),
        ("{{truncate .ID 2}}", "ab"),
        ("{{\"}}\"}}{{`\\n`}}", "}}\\n"),
        ("{{/* nothing */}}a {{- .ID -}} b", "aabcb"),
        ("{{(index .Env 0) | lower}}", "a=1"),
    ] {
        assert_eq!(render(template).unwrap(), expected, "{template}");
    }
}

#[test]
fn maps_variables_and_formats_are_gos() {
    for (template, expected) in [
        ("<{{index .Labels \"absent\"}}>", "<>"),
        ("<{{index .None \"absent\"}}>", "<>"),
        ("{{if index .Labels \"absent\"}}y{{else}}n{{end}}", "n"),
        ("{{if .Labels.absent}}y{{else}}n{{end}}", "n"),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "x=y;"),
        (
            "{{range $i, $e := .Env}}{{if $i}},{{end}}{{$e}}{{end}}",
            "A=1,B=2",
        ),
        ("{{range $e := .Env}}{{$e}} {{end}}", "A=1 B=2 "),
        ("{{$s := .State}}{{$s.Status}}", "exited"),
        ("{{$n := 1}}{{if .ID}}{{$n = 2}}{{end}}{{$n}}", "2"),
        ("{{with $s := .State}}{{$s.ExitCode}}{{end}}", "7"),
        (
            "{{printf \"%s-%05d|%-5s|%q|%.1f%%\" .ID 7 \"a\" \"b\" 2}}",
            "abc-00007|a    |\"b\"|2.0%",
        ),
        ("{{printf \"%.2s %d\" .ID}}", "ab %!d(MISSING)"),
        (
            "{{if gt .State.ExitCode 3}}big{{end}}{{le 1 1}}{{lt \"a\" \"b\"}}",
            "bigtruetrue",
        ),
        ("{{pad .ID 1 2}}|", " abc  |"),
        ("{{(index .List 0).Name}}", "first"),
    ] {
        assert_eq!(render(template).unwrap(), expected, "{template}");
    }
    for template in [
        "{{$x}}",
        "{{$x = 1}}",
        "{{$a, $b := .Env}}",
        "{{lt .ID 1}}",
        "{{range $a, $b, $c := .Env}}{{end}}",
    ] {
        assert!(render(template).is_err(), "{template}");
    }
}

#[test]
fn what_is_empty_is_shown_as_what_it_is() {
    let value = json!({ "HostConfig": { "CapAdd": null, "Sysctls": null, "PidsLimit": null } });
    for (template, expected) in [
        ("{{.HostConfig.CapAdd}}", "[]"),
        ("{{.HostConfig.Sysctls}}", "map[]"),
        ("{{.HostConfig.PidsLimit}}", "<nil>"),
        ("{{json .HostConfig.CapAdd}}", "null"),
        ("{{len .HostConfig.CapAdd}}", "0"),
    ] {
        let rendered = Template::parse(template).unwrap().render(&value).unwrap();
        assert_eq!(rendered, expected, "{template}");
    }
}

#[test]
fn blocks() {
    for (template, expected) in [
        ("{{range .Env}}<{{.}}{{$.ID}}>{{end}}", "<A=1abc><B=2abc>"),
        ("{{range .None}}x{{else}}none{{end}}", "none"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "down"),
        (
            "{{if .None}}1{{else if eq .State.Status \"exited\"}}2{{else}}3{{end}}",
            "2",
        ),
        ("{{with .State}}{{.Status}}{{end}}", "exited"),
        ("{{if and .ID (not .None)}}yes{{end}}", "yes"),
    ] {
        assert_eq!(render(template).unwrap(), expected, "{template}");
    }
}

#[test]
fn mistakes_are_told() {
    for template in [
        "{{.ID",
        "{{.Nope}}",
        "{{fly .ID}}",
        "{{if .ID}}",
        "{{end}}",
        "{{}}",
        "{{.ID .ID}}",
        "{{.ID | .ID}}",
        "{{(.ID}}",
        "{{\"x}}",
        "{{index .Env 9}}",
        "{{range .ID}}{{end}}",
        "{{.ID.X}}",
        "{{upper}}",
        "{{..}}",
    ] {
        assert!(render(template).is_err(), "{template}");
    }
    let deep = "{{if .ID}}".repeat(100);
    assert!(render(&deep).is_err());
    let deep = format!("{{{{{}}}}}", "(".repeat(100));
    assert!(render(&deep).is_err());
}

#[test]
fn tables_have_headings() {
    let template = Template::parse("{{.ID}}\t{{.CreatedAt}}\t{{upper .Names}}").unwrap();
    assert_eq!(template.heading(), "ID\tCREATED AT\tNAMES");
}
