//! What a person at a terminal sees.

use super::{digest_of, seed};
use hullbox_tests::Terminal;
use hullbox_tests::registry::{PASSWORD, Registry, USER, User};
use std::fs;

#[test]
#[ignore = "needs the built program: make test"]
fn a_pull_shows_each_layer_and_a_login_asks_for_what_is_not_known() {
    let (registry, user) = (Registry::plain(), User::with_store());
    let name = registry.name("box:1");
    seed(&user, &name, &[]);
    let mut terminal = Terminal::start(&user.command(["pull", &name]), 24, 100);
    terminal.expect("1: Pulling from box");
    terminal.expect("Pull complete");
    terminal.expect(&format!("Digest: {}", digest_of(&user, &name)));
    terminal.expect("Status: Downloaded newer image");
    assert_eq!(terminal.wait(), 0);

    let secured = Registry::secured();
    user.trust(&secured);
    let file = user.home().join(".docker/config.json");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    // tester:wrong
    let wrong = serde_json::json!({"auths": {secured.address(): {"auth": "dGVzdGVyOndyb25n"}}});
    fs::write(&file, wrong.to_string()).unwrap();
    let mut terminal = Terminal::start(&user.command(["login", secured.address()]), 24, 100);
    terminal.expect("Authenticating with existing credentials...");
    terminal.expect("does not accept");
    terminal.expect(&format!("Username ({USER}): "));
    terminal.type_text("\n");
    terminal.expect("Password: ");
    terminal.type_text(&format!("{PASSWORD}\n"));
    terminal.expect("Login Succeeded");
    assert_eq!(terminal.wait(), 0);
}
