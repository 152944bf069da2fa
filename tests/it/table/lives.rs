//! Containers: filters, formats, logs, codes and events.

use super::{Case, Table, case};
use hullbox_tests::{Mode, both_modes};

const TABLE: Table = Table {
    setup: SETUP,
    verb: "h ",
    cases: CASES,
    cleanup: CLEANUP,
};

/// Five containers: one that was never started, one that ended with 3, one that was killed, one that
/// runs and has a health check, and one that is paused.
const SETUP: &str = r#"
for c in made ended killed up still; do h rm -f $P-$c; done >/dev/null 2>&1
h create $R --name $P-made --label a=1 --label b=2 --label tier=web -e X=1 busybox true >/dev/null
h run $R --name $P-ended --label a=1 busybox sh -c 'echo one; echo two >&2; echo three; printf four; exit 3' >/dev/null 2>&1
h run -d $R --name $P-killed --label a=2 busybox sleep 1000 >/dev/null
h kill $P-killed >/dev/null; h wait $P-killed >/dev/null
h run -d $R --name $P-up --label b=2 --health-cmd true --health-interval 1h --health-retries 2 busybox sleep 1000 >/dev/null
h run -d $R --name $P-still busybox sleep 1000 >/dev/null
h pause $P-still >/dev/null
K=$(h inspect -f '{{.Id}}' $P-killed) S=$(h inspect -f '{{.Id}}' $P-still) E=$(h inspect -f '{{.Id}}' $P-ended)
"#;

const CLEANUP: &str =
    "for c in made ended killed up still; do h rm -f $P-$c; done >/dev/null 2>&1\n";

const CASES: &[Case] = &[
    // Filters.
    case("ps -a --filter name=^/?$P- --filter label=a --format {{.Names}} | sort | xargs", "t-ended t-killed t-made rc=0"),
    case("ps -a --filter name=^/?$P- --filter label=a --filter label=b --format {{.Names}} | sort | xargs", "t-made rc=0"),
    case("ps -a --filter label=a=2 --filter label=tier --format {{.Names}} | sort | xargs", "rc=0"),
    case("ps -a --filter label=tier=we --format {{.Names}} | sort | xargs", "rc=0"),
    case("ps -a --filter name=$P-k --filter name=$P-m --format {{.Names}} | sort | xargs", "t-killed t-made rc=0"),
    case(r#"ps -a --filter "name=$P-(made|up)\$" --format {{.Names}} | sort | xargs"#, "t-made t-up rc=0"),
    case("ps -a --filter name=$P-mad --format {{.Names}} | sort | xargs", "t-made rc=0"),
    case("ps -a --filter name=^/?$P- --filter status=exited --format {{.Names}} | sort | xargs", "t-ended t-killed rc=0"),
    case("ps -a --filter name=^/?$P- --filter status=paused --filter status=created --format {{.Names}} | sort | xargs", "t-made t-still rc=0"),
    case("ps -a --filter name=^/?$P- --filter exited=3 --format {{.Names}} | sort | xargs", "t-ended rc=0"),
    case("ps -a --filter name=^/?$P- --filter exited=137 --format {{.Names}} | sort | xargs", "t-killed rc=0"),
    case("ps -a --filter name=^/?$P- --filter exited=0 --format {{.Names}} | sort | xargs", "rc=0"),
    case("ps --filter name=^/?$P- --format {{.Names}} | sort | xargs", "t-still t-up rc=0").podman("t-up rc=0"),
    case("ps -a --filter name=^/?$P- --filter before=$P-killed --format {{.Names}} | sort | xargs", "t-ended t-made rc=0"),
    case("ps -a --filter name=^/?$P- --filter since=$P-killed --format {{.Names}} | sort | xargs", "t-still t-up rc=0"),
    case("ps -a --filter name=^/?$P- --filter ancestor=busybox --format {{.Names}} | sort | xargs", "t-ended t-killed t-made t-still t-up rc=0"),
    case("ps -a --filter ancestor=no-such-image --format {{.Names}} | sort | xargs", "rc=0"),
    case("ps -a --filter status=sleeping -q", "rc=1").podman("rc=125"),
    case("ps -a --filter frob=1 -q", "rc=1").podman("rc=125"),
    case("ps -a --filter frob -q", "rc=125"),
    case("ps -a --filter exited=many -q", "rc=1").podman("rc=125"),
    case("ps -a --filter health=sometimes -q", "rc=1").podman("rc=0"),
    // Formats.
    case("ps -a --filter name=$P-ended --format '{{.Names}}|{{.State}}|{{.Command}}|{{.Image}}' --no-trunc", r#"t-ended|exited|"sh -c 'echo one; echo two >&2; echo three; printf four; exit 3'"|busybox rc=0"#).podman("t-ended|exited|sh -c echo one; echo two >&2; echo three; printf four; exit 3|docker.io/library/busybox:latest rc=0"),
    case(r#"ps -a --filter name=$P-ended --format '{{.Label "a"}}'"#, "1 rc=0"),
    case("ps -a --filter name=$P-made --format '{{.Labels}}'", "a=1,b=2,tier=web rc=0").podman("map[a:1 b:2 tier:web] rc=0"),
    case(
        r"ps -a --filter name=$P-ended --format '{{.CreatedAt}}' | sed -E 's/^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}(\.[0-9]+)? [+-][0-9]{4} [A-Z+-][A-Z0-9]+$/TIME/'",
        "TIME rc=0",
    ),
    case(
        r"images --format '{{.CreatedAt}}' busybox | sed -E 's/^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}(\.[0-9]+)? [+-][0-9]{4} [A-Z+-][A-Z0-9]+$/TIME/'",
        "TIME rc=0",
    ),
    case(r#"ps -a --filter name=$P-ended --format 'table {{.Names}}\t{{.State}}'"#, "NAMES STATE~t-ended exited rc=0"),
    case("ps -a --filter name=$P-ended --format 'table {{.ID}}' | head -1", "CONTAINER ID rc=0"),
    case("ps -a --filter name=$P-ended --format '{{.Nope}}'", "rc=1").podman("rc=125"),
    case("ps -a --filter name=$P-ended --format '{{.Names'", "rc=1").podman("rc=125"),
    case(
        r#"ps -a --filter name=$P-ended --format '{{upper .State}} {{lower .Names}} {{printf "%-8s|" .State}}'"#,
        "EXITED t-ended exited | rc=0",
    ),
    case("inspect -f '{{.State.Status}} {{.State.ExitCode}} {{.State.Running}} {{.State.Paused}}' $P-ended $P-still", "exited 3 false false~paused 0 true true rc=0").podman("exited 3 false false~paused 0 false true rc=0"),
    case("inspect -f '{{json .Config.Labels}}' $P-ended", r#"{"a":"1"} rc=0"#),
    case("inspect -f '{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}' $P-made", "a=1;b=2;tier=web; rc=0"),
    case(r#"inspect -f '[{{index .Config.Labels "absent"}}][{{.Config.Labels.absent}}]' $P-ended"#, "[][<no value>] rc=0"),
    case("inspect -f '{{if eq .State.ExitCode 3}}three{{else}}other{{end}}' $P-ended", "three rc=0"),
    case(r#"inspect -f '{{join .Config.Cmd "+"}} {{.Config.Cmd}} {{len .Config.Cmd}}' $P-up"#, "sleep+1000 [sleep 1000] 2 rc=0"),
    case("inspect -f '{{.HostConfig.CapAdd}} {{json .HostConfig.CapAdd}}' $P-up", "[] null rc=0").podman("[] [] rc=0"),
    case("inspect -f '{{.Nope}}' $P-up", "rc=1").podman("rc=125"),
    case("inspect -f '{{.Name}}' no-such-thing $P-up", "/t-up rc=1").podman("t-up rc=125"),
    case("inspect -f '{{range .Config.Env}}{{println .}}{{end}}' $P-made | grep X=", "X=1 rc=0"),
    case("inspect --type image -f '{{json .Config.Cmd}} {{.Os}}' busybox", r#"["sh"] linux rc=0"#),
    case("inspect -f '{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}} {{.HostConfig.AutoRemove}}' $P-up", "no 0 false rc=0"),
    // Health.
    case("inspect -f '{{.State.Health.Status}} {{.State.Health.FailingStreak}} {{len .State.Health.Log}}' $P-up", "starting 0 0 rc=0"),
    case("inspect -f '{{json .Config.Healthcheck.Test}} {{.Config.Healthcheck.Retries}}' $P-up", r#"["CMD-SHELL","true"] 2 rc=0"#),
    case("ps --filter name=$P-up --format '{{.Status}}' | sed 's/.*(/(/'", "(health: starting) rc=0").podman("(starting) rc=0"),
    case("ps -a --filter name=^/?$P- --filter health=starting --format {{.Names}}", "t-up rc=0"),
    case("ps -a --filter name=^/?$P- --filter health=none --format {{.Names}} | sort | xargs", "t-ended t-killed t-made t-still rc=0").podman("rc=0"),
    case("inspect -f '{{json .State.Health}}' $P-ended", "null rc=0"),
    // Logs.
    case("logs $P-ended 2>/dev/null", "one~three~four rc=0"),
    case("logs $P-ended 2>&1 >/dev/null", "two rc=0"),
    case("logs --tail 1 $P-ended 2>/dev/null", "four rc=0"),
    case("logs --tail 0 $P-ended", "rc=0"),
    case("logs --tail all $P-ended 2>/dev/null | wc -l", "2 rc=0").podman("0 rc=0"),
    case("logs --until 1h $P-ended", "rc=0").podman("one~three~four rc=0"),
    case("logs -t --tail 1 $P-ended 2>/dev/null | cut -c11,20", "T. rc=0"),
    case("logs $P-made", "rc=0"),
    case("logs -f $P-ended 2>/dev/null | wc -l", "2 rc=0"),
    case("logs --since yesterday $P-ended", "rc=1").podman("rc=125"),
    case("logs no-such-thing", "rc=1").podman("rc=125"),
    // Codes.
    case("run --rm $R busybox sh -c 'exit 4'", "rc=4"),
    case("run --rm $R busybox no-such-program", "rc=127"),
    case("run --rm $R busybox /etc", "rc=126"),
    case("run --rm $R --no-such-flag busybox true", "rc=125"),
    case(r#"run --rm $R busybox sh -c "kill -9 \$\$""#, "rc=0"),
    case("start -a $P-ended 2>/dev/null | wc -l", "2 rc=0"),
    case("start no-such-thing", "rc=1").podman("rc=125"),
    case("exec $P-ended true", "rc=1").podman("rc=255"),
    case("exec $P-still true", "rc=1").podman("rc=255"),
    case("exec $P-up no-such-program >/dev/null", "rc=126").podman("rc=127").ours("rc=127", "a shell's code, as of run"),
    case("exec $P-up sh -c 'exit 5'", "rc=5"),
    case("wait $P-ended $P-killed", "3~137 rc=0"),
    case("wait no-such-thing", "rc=1").podman("rc=125"),
    case("stop no-such-thing", "rc=1").podman("rc=125"),
    case("kill $P-ended", "rc=1").podman("rc=125"),
    case("kill -s FOO $P-up", "rc=1")
        .podman("rc=125")
        .ours("rc=125", "a flag that means nothing is told before anything is asked"),
    case("pause $P-still", "rc=1").podman("rc=125"),
    case("unpause $P-up", "rc=1").podman("rc=125"),
    case("rm $P-up", "rc=1").podman("rc=2"),
    case("rm no-such-thing", "rc=1"),
    case("rm -f no-such-thing", "rc=0"),
    case("rename $P-up $P-made", "rc=1").podman("rc=125"),
    case("rmi no-such-image", "rc=1"),
    case("top $P-ended", "rc=1").podman("rc=125"),
    case("cp no-such-thing:/x /tmp/y", "rc=1").podman("rc=125"),
    case("update --pids-limit -1 $P-up | head -1", "t-up rc=0").podman("ID rc=0"),
    case("inspect no-such-thing", "[] rc=1").podman("[] rc=125"),
    // Events.
    case("events --since 1h --until 0s --filter container=$K --format '{{.Action}}' | xargs", "create start kill die rc=0"),
    case("events --since 1h --until 0s --filter container=$K --filter event=die --format '{{.Actor.Attributes.exitCode}}'", "137 rc=0"),
    case("events --since 1h --until 0s --filter container=$K --filter event=kill --format '{{.Actor.Attributes.signal}} {{.Actor.Attributes.a}}'", "9 2 rc=0"),
    case("events --since 1h --until 0s --filter container=$S --format '{{.Type}} {{.Action}}' | xargs", "container create container start container pause rc=0"),
    case("events --since 1h --until 0s --filter container=$K --filter label=a=2 --filter event=start --filter event=create --format '{{.Actor.Attributes.name}} {{.Action}}' | xargs", "t-killed create t-killed start rc=0"),
    case("events --since 1h --until 0s --filter container=$E --filter type=image | wc -l", "0 rc=0"),
];

both_modes! {
    fn forty_commands_and_more_are_answered_as_docker_does(mode) {
        match mode {
            Mode::Vm => TABLE.compare_ours("--isolation=vm -m 128m", "tv"),
            Mode::Container => TABLE.compare_ours("--isolation=container", "tc"),
        }
    }
}

#[test]
fn docker_answers_as_the_table_says() {
    TABLE.compare_docker("--network none", "td");
}

#[test]
fn podman_answers_as_the_table_says() {
    TABLE.compare_podman("--network none", "tp");
}
