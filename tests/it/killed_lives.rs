//! Commands on a kept container, and their monitors, killed at any moment: the next command works,
//! the store is sound, and removing the container leaves nothing.
//!
//! `HULLBOX_TEST_KILLS=CONTAINERS,VMS,LOADS` sets how many moments are tried, `HULLBOX_TEST_SEED`
//! which: many moments can be tried in several runs, each with a seed of its own.

use crate::outcomes::{assert_nothing_left, assert_sound};
use hullbox_tests::{Mode, both_modes, hullbox, on_the_machine};

/// The verbs that are killed in turn.
const VERBS: [&str; 6] = ["create", "start", "exec", "commit", "stop", "rm"];

/// A verb's command line.
fn args(verb: &str, mode: Mode) -> String {
    match verb {
        "create" => format!(
            "create --name victim {} -m 128m --cpus 1 busybox sleep 1000",
            mode.flag()
        ),
        "exec" => {
            "exec victim sh -c 'i=0; while [ $i -lt 200 ]; do echo $i; i=$((i+1)); done'".to_owned()
        }
        "commit" => "commit victim killed-commit".to_owned(),
        "stop" => "stop -t 0 victim".to_owned(),
        verb => format!("{verb} victim"),
    }
}

/// How long each of the verbs takes when nobody kills it, in hundredths of what a mere `ps` takes:
/// moments are spread over that. The second of two lives, because the first one warms up.
fn durations(mode: Mode) -> Vec<u64> {
    let timed: String = VERBS
        .iter()
        .map(|verb| format!("timed {}\n", args(verb, mode)))
        .collect();
    let script = format!(
        r#"
        timed() {{
            begin=$(date +%s%N)
            "$HULLBOX_BIN" "$@" >/dev/null || exit 1
            line="$line $(($(date +%s%N) - begin))"
        }}
        for life in 1 2; do
            line=
            timed ps -q
            {timed}
            "$HULLBOX_BIN" rmi killed-commit >/dev/null || exit 1
        done
        echo $line
        "#
    );
    let text = on_the_machine(&script).exits(0).text();
    let all: Vec<u64> = text.split(' ').map(|n| n.parse().unwrap()).collect();
    let (unit, verbs) = all.split_first().expect("numbers");
    assert_eq!(verbs.len(), VERBS.len(), "{text}");
    verbs.iter().map(|ns| (ns * 100 / unit).max(1)).collect()
}

/// How many moments are tried of lives behind either wall, and of loads.
fn kills() -> [u64; 3] {
    let wanted = std::env::var("HULLBOX_TEST_KILLS").unwrap_or_else(|_| "6,3,10".to_owned());
    let counts: Vec<_> = wanted.split(',').map(|n| n.trim().parse()).collect();
    match &counts[..] {
        [Ok(containers), Ok(vms), Ok(loads)] => [*containers, *vms, *loads],
        _ => panic!("HULLBOX_TEST_KILLS is not CONTAINERS,VMS,LOADS: {wanted}"),
    }
}

fn lives(mode: Mode) -> u64 {
    let [containers, vms, _] = kills();
    match mode {
        Mode::Container => containers,
        Mode::Vm => vms,
    }
}

/// How many loads are killed.
pub fn loads() -> u64 {
    kills()[2]
}

fn seed() -> u64 {
    let seed = std::env::var("HULLBOX_TEST_SEED").unwrap_or_else(|_| "1".to_owned());
    seed.parse().expect("a number")
}

/// A number below `limit`, of one step of SplitMix64.
fn random(state: &mut u64, limit: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % limit
}

/// Brings a container to where `verb` can begin, begins it, and kills it or the monitor. All of it
/// runs where the containers do: killing a forwarded command kills only its forwarder.
fn kill_one(verb: &str, mode: Mode, moment: u64, monitor: bool) -> String {
    let kill = if monitor {
        r#"for p in /proc/[0-9]*; do
            tr '\0' ' ' <$p/cmdline 2>/dev/null | grep -q [_]_monitor && kill -9 ${p#/proc/}
        done 2>/dev/null"#
    } else {
        "kill -9 $victim 2>/dev/null || echo \"it had ended\" >&2"
    };
    let script = format!(
        r#"
        h() {{ "$HULLBOX_BIN" "$@"; }}
        fail() {{ echo "failed: $*" >&2; h ps -a >&2; exit 1; }}
        create() {{ h {create}; }}
        case {verb} in
            create) ;;
            start) create || fail create ;;
            rm) create || fail create; h start victim && h stop -t 0 victim || fail run ;;
            *) create && h start victim || fail run ;;
        esac >/dev/null
        took() {{ begin=$(date +%s%N); "$@" >/dev/null; echo $((($(date +%s%N) - begin) / 1000)); }}
        delay=$(($(took h ps -q) * {moment} / 100))
        echo "after $((delay / 1000)) ms" >&2
        # To wait takes a program, too.
        delay=$((delay - $(took sleep 0)))
        [ $delay -gt 0 ] || delay=0

        # A program of its own: killed, it is the command that dies, and no shell around it.
        "$HULLBOX_BIN" {args} >/dev/null 2>&1 &
        victim=$!
        sleep $((delay / 1000000)).$(printf %06d $((delay % 1000000)))
        {kill}
        wait $victim 2>/dev/null
        echo "ended with $?" >&2

        # Whatever was reached: what is there can be asked, started, used, committed and removed.
        # What a commit had frozen goes on when the commit is gone, in a moment.
        for i in $(seq 50); do
            state=$(h ps -a --filter name=victim --format '{{{{.State}}}}') || fail ps
            [ "$state" = paused ] || break
            sleep 0.1
        done
        h system check >/dev/null || fail check
        echo "was ${{state:-not there}}" >&2
        if [ -n "$state" ]; then
            if [ "$state" != running ]; then h start victim >/dev/null || fail start; fi
            if ! [ "$(h exec victim echo well)" = well ]; then
                # The monitor may have been told to stop it, and did: that is what was wanted.
                [ {verb} = stop ] && h wait victim >&2 && h start victim >/dev/null || fail exec
                [ "$(h exec victim echo well)" = well ] || fail exec again
            fi
            h rm -f victim >/dev/null || fail rm
        else
            [ "$(h run --rm {flag} -m 128m busybox echo next)" = next ] || fail run
        fi
        if [ {verb} = commit ] && [ -n "$(h images -q killed-commit)" ]; then
            echo "was committed" >&2
            [ "$(h run --rm {flag} -m 128m killed-commit echo kept)" = kept ] || fail committed
            h rmi killed-commit >/dev/null || fail rmi
        fi
        echo well
        "#,
        flag = mode.flag(),
        create = args("create", mode),
        args = args(verb, mode),
    );
    let done = on_the_machine(&script);
    if done.code == 0 {
        eprintln!("{}", done.stderr.trim_end().replace('\n', ", "));
        return done.text();
    }
    format!("{}\n{}", done.text(), done.stderr)
}

both_modes! {
    fn a_life_killed_at_any_moment_goes_on(mode) {
        let _ = hullbox(["rm", "-f", "victim"]);
        let mut state = seed();
        let count = usize::try_from(lives(mode)).expect("a count");
        let durations = durations(mode);
        eprintln!("in hundredths of a ps: {VERBS:?} take {durations:?}");
        let verbs = VERBS.into_iter().zip(durations);
        for (round, (verb, within)) in verbs.cycle().take(count).enumerate() {
            // The command and the monitor in turn, and the other way around at the next turn of
            // the verbs.
            let monitor = (round + round / VERBS.len()) % 2 == 1;
            let moment = random(&mut state, within);
            let whom = if monitor { "monitor" } else { "command" };
            eprint!("{verb}: the {whom}: ");
            let said = kill_one(verb, mode, moment, monitor);
            assert_eq!(said, "well", "{verb}: the {whom} killed at {moment}");
        }
        assert_eq!(hullbox(["ps", "-aq"]).exits(0).text(), "");
        assert_sound();
        assert_nothing_left();
    }
}
