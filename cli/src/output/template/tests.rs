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

/// What docker 26.1 answers to `inspect --format`, of a container that was made with `-l x=y`.
#[test]
fn dockers_answers_are_ours() {
    let container = json!({
        "Id": "baffe6d48fe6",
        "Name": "/tt",
        "Path": "true",
        "Args": [],
        "ExecIDs": null,
        "State": {"Status": "created", "Running": false, "Pid": 0, "ExitCode": 0, "Health": null},
        "Config": {
            "Cmd": ["true"], "Entrypoint": null, "Env": ["PATH=/bin"], "ExposedPorts": null,
            "Labels": {"x": "y"}, "StopTimeout": 3, "Volumes": null, "Healthcheck": null,
        },
        "HostConfig": {
            "Binds": null, "CapAdd": null, "PidsLimit": null, "ShmSize": 67_108_864,
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        },
        "NetworkSettings": {"Ports": {}},
    });
    for (template, expected) in [
        ("{{.Config.Labels.absent}}", "<no value>"),
        (
            "{{with .Config.Labels}}{{.x}}{{.absent}}{{end}}",
            "y<no value>",
        ),
        ("{{index .Config.Labels \"absent\"}}", ""),
        ("{{.State.Health}}", "<nil>"),
        ("{{if .State.Health}}y{{else}}n{{end}}", "n"),
        ("{{.HostConfig.PidsLimit}}", "<nil>"),
        ("{{json .HostConfig.PidsLimit}}", "null"),
        ("{{json .HostConfig.CapAdd}}", "null"),
        (
            "{{.HostConfig.CapAdd}}{{.HostConfig.Binds}}{{.ExecIDs}}",
            "[][][]",
        ),
        (
            "{{.Config.Cmd}}{{.Config.Entrypoint}}{{.Args}}",
            "[true][][]",
        ),
        (
            "{{.Config.ExposedPorts}}{{.NetworkSettings.Ports}}",
            "map[]map[]",
        ),
        ("{{.Config.Healthcheck}}", "<nil>"),
        ("{{.Config.Labels}}", "map[x:y]"),
        ("{{println .Name}}", "/tt\n"),
        ("{{print .Name 1 2}}", "/tt1 2"),
        ("{{.Config.Env | json}}", "[\"PATH=/bin\"]"),
        ("{{slice .Id 0 4}}", "baff"),
        ("{{html \"<a>\"}}{{urlquery \"a b\"}}", "&lt;a&gt;a+b"),
        ("{{title \"ab cd\"}}", "Ab Cd"),
        ("{{split \"a,b\" \",\"}}", "[a b]"),
        ("{{pad \"x\" 1 1}}|", " x |"),
        ("{{truncate \"abcdef\" 3}}", "abc"),
        ("{{not true}}", "false"),
        ("{{.State.Pid | printf \"%05d\"}}", "00000"),
        ("{{join .Args \",\"}}", ""),
        ("{{.HostConfig.ShmSize}}", "67108864"),
        ("{{len .Config.Env}}{{len .HostConfig.CapAdd}}", "10"),
        ("{{$x := 1}}{{$x}}", "1"),
        ("{{define \"a\"}}hi{{end}}{{template \"a\"}}", "hi"),
        ("{{block \"b\" .}}{{.Name}}{{end}}", "/tt"),
        ("{{range $i, $e := .Config.Env}}{{break}}{{end}}", ""),
        ("{{eq .State.Status \"x\" \"created\"}}", "true"),
        ("{{json .Config.Labels}}", "{\"x\":\"y\"}"),
        ("{{json \"<a>\"}}", "\"<a>\""),
        ("{{.Config.StopTimeout}}", "3"),
        ("{{if eq .State.ExitCode 0}}z{{end}}", "z"),
        ("{{and 1 0}}{{or \"\" \"d\"}}", "0d"),
        ("{{range .HostConfig.Binds}}x{{else}}none{{end}}", "none"),
    ] {
        let rendered = Template::parse(template).and_then(|t| t.render(&container));
        assert_eq!(rendered.unwrap(), expected, "{template}");
    }
    for (template, why) in [
        ("{{.Nope}}", "map has no entry for key \"Nope\""),
        ("{{.Config.Nope}}", "map has no entry for key \"Nope\""),
        ("{{len .Nope}}", "map has no entry for key \"Nope\""),
        ("{{.State.Health.Status}}", "no entry for key \"Status\""),
        ("{{index .Config.Cmd 5}}", "index out of range: 5"),
        ("{{.Path.x}}", "can't evaluate field x in type"),
        ("{{.Config.Labels.x.y}}", "can't evaluate field y in type"),
        (
            "{{join .Config.Labels \",\"}}",
            "wrong type for value; expected []string",
        ),
        ("{{table \"x\"}}", "function \"table\" not defined"),
        ("{{$x = 1}}", "undefined variable \"$x\""),
        (
            "{{if 1}}{{$x := 1}}{{end}}{{$x}}",
            "undefined variable \"$x\"",
        ),
        ("a{{if 1}}b", "unexpected EOF"),
        ("{{range .Args}}{{if 1}}{{end}}", "unexpected EOF"),
        ("{{define \"x\"}}a", "unexpected EOF"),
        ("a{{end}}b", "unexpected"),
        ("{{.Id", "unclosed action"),
        ("{{if false}}{{fly}}{{end}}", "function \"fly\" not defined"),
    ] {
        let rendered = Template::parse(template).and_then(|t| t.render(&container));
        let error = rendered.unwrap_err().to_string();
        assert!(error.contains(why), "{template}: {error}");
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
    let deep = "{{if .ID}}".repeat(1000) + &"{{end}}".repeat(1000);
    assert!(render(&deep).is_err());
    let deep = format!("{{{{{}}}}}", "(".repeat(1000));
    assert!(render(&deep).is_err());
}

#[test]
fn rows_have_labels() {
    let row = json!({"Names": "x", "Labels": "a=1,b=2=3,c,ab=4"});
    for (template, expected) in [
        (
            "{{.Label \"a\"}}|{{.Label \"b\"}}|{{.Label \"c\"}}|{{.Label \"d\"}}",
            "1|2=3||",
        ),
        (
            "{{if eq (.Label \"a\") \"1\"}}{{.Label \"ab\" | printf \"%3s\"}}{{end}}",
            "  4",
        ),
    ] {
        let rendered = Template::parse(template).and_then(|t| t.render(&row));
        assert_eq!(rendered.unwrap(), expected, "{template}");
    }
}

#[test]
fn tables_have_headings() {
    let template = Template::parse("{{.ID}}\t{{.CreatedAt}}\t{{upper .Names}}").unwrap();
    assert_eq!(template.heading(&[]).unwrap(), "ID\tCREATED AT\tNAMES");
    // The command's own headings, which functions of values leave alone.
    let columns = [("CONTAINER ID", "ID"), ("STATUS", "Status")];
    let template = Template::parse("{{lower .ID}}\t{{json .Status}}{{if .No}}\t{{.No}}{{end}}");
    let heading = template.unwrap().heading(&columns).unwrap();
    assert_eq!(heading, "CONTAINER ID\tSTATUS\tNO");
}
