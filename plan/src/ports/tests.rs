use super::*;

/// What a `-p` publishes, one line for each port: `IP HOST-HOST CONTAINER/PROTOCOL`.
fn publish(text: &str) -> Result<Vec<String>, String> {
    let line = |port: &PublishedPort| {
        let ip = port
            .host_ip
            .map_or_else(|| "*".to_owned(), |ip| ip.to_string());
        let (low, high) = port.host_ports;
        let transport = Transport::from(port.protocol).as_str();
        format!("{ip} {low}-{high} {}/{transport}", port.container_port)
    };
    match text.parse::<Publish>() {
        Ok(Publish(ports)) => Ok(ports.iter().map(line).collect()),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn ports_are_published_in_dockers_short_syntax() {
    for (text, wanted) in [
        ("80", &["* 0-0 80/tcp"][..]),
        (":80", &["* 0-0 80/tcp"]),
        ("0:80", &["* 0-0 80/tcp"]),
        ("8080:80", &["* 8080-8080 80/tcp"]),
        ("8080:80/udp", &["* 8080-8080 80/udp"]),
        ("8080:80/TCP", &["* 8080-8080 80/tcp"]),
        ("8080:80/", &["* 8080-8080 80/tcp"]),
        ("080:0080", &["* 80-80 80/tcp"]),
        ("65535:65535", &["* 65535-65535 65535/tcp"]),
        ("127.0.0.1:8080:80", &["127.0.0.1 8080-8080 80/tcp"]),
        ("127.0.0.1::5000", &["127.0.0.1 0-0 5000/tcp"]),
        ("0.0.0.0:80:80/udp", &["0.0.0.0 80-80 80/udp"]),
        ("[::1]:80:80", &["::1 80-80 80/tcp"]),
        (
            "[2001:4860:0:2001::68]::333",
            &["2001:4860:0:2001::68 0-0 333/tcp"],
        ),
        ("::1:80:80", &["::1 80-80 80/tcp"]),
        (
            "2001:4860:0:2001::68::333",
            &["2001:4860:0:2001::68 0-0 333/tcp"],
        ),
        ("::::80", &[":: 0-0 80/tcp"]),
        ("7000-7001", &["* 0-0 7000/tcp", "* 0-0 7001/tcp"]),
        (
            "9000-9001:7000-7001/udp",
            &["* 9000-9000 7000/udp", "* 9001-9001 7001/udp"],
        ),
        (
            "0.0.0.0:1234-1235:3333-3334/tcp",
            &["0.0.0.0 1234-1234 3333/tcp", "0.0.0.0 1235-1235 3334/tcp"],
        ),
        // A range of the host for one port: the first that is free.
        ("8000-9000:80", &["* 8000-9000 80/tcp"]),
        ("80-80:80-80", &["* 80-80 80/tcp"]),
    ] {
        let wanted: Vec<String> = wanted.iter().map(|line| (*line).to_owned()).collect();
        assert_eq!(publish(text), Ok(wanted), "{text}");
    }
    let all = publish("1-65535:1-65535").unwrap();
    assert_eq!(all.len(), 65535);
    assert_eq!(all[65534], "* 65535-65535 65535/tcp");
}

#[test]
fn ports_are_published_in_the_long_syntax() {
    for (text, wanted) in [
        ("target=80", "* 0-0 80/tcp"),
        ("target=80,published=8080", "* 8080-8080 80/tcp"),
        (
            "published=8080,target=80,protocol=udp",
            "* 8080-8080 80/udp",
        ),
        (
            "published=8000-8010,target=80,mode=host",
            "* 8000-8010 80/tcp",
        ),
    ] {
        assert_eq!(publish(text), Ok(vec![wanted.to_owned()]), "{text}");
    }
}

#[test]
fn what_cannot_be_published_is_refused_in_dockers_words() {
    for (text, why) in [
        ("", "no port specified: <empty>"),
        ("8080:", "no port specified: 8080:<empty>"),
        ("80:/tcp", "no port specified: 80:/tcp<empty>"),
        ("published=80", "no port specified: 80:/tcp<empty>"),
        ("http", "invalid containerPort: http"),
        ("80:0", "invalid containerPort: 0"),
        ("80:65536", "invalid containerPort: 65536"),
        ("80:-1", "invalid containerPort: -1"),
        ("80:+1", "invalid containerPort: +1"),
        ("80:90-80", "invalid containerPort: 90-80"),
        ("80:80-", "invalid containerPort: 80-"),
        ("80:80-90-100", "invalid containerPort: 80-90-100"),
        ("192.168.1.100", "invalid containerPort: 192.168.1.100"),
        ("x:80", "invalid hostPort: x"),
        ("0-5:80", "invalid hostPort: 0-5"),
        ("0.0.0.0:80", "invalid hostPort: 0.0.0.0"),
        ("192.168.1.100:-1:80", "invalid hostPort: -1"),
        ("localhost:80:80", "invalid IP address: localhost"),
        ("[::1:80:80", "invalid IP address: [::1"),
        ("[::1]x:80:80", "invalid IP address: [::1]x"),
        ("1.2.3:80:80", "invalid IP address: 1.2.3"),
        ("80:80/icmp", "invalid proto: icmp"),
        ("80:80/tcp/udp", "invalid proto: tcp/udp"),
        (
            "1-3:5-6",
            "invalid ranges specified for container and host Ports: 5-6 and 1-3",
        ),
        (
            "8080:80-81",
            "invalid ranges specified for container and host Ports: 80-81 and 8080",
        ),
        (
            "target=80,8080",
            "invalid publish opts format (should be name=value but got '8080')",
        ),
        (
            "=1,target=80",
            "invalid publish opts format (should be name=value but got '=1')",
        ),
        ("target=80,host_ip=127.0.0.1", "invalid field key host_ip"),
        (
            "80:80/sctp",
            "sctp is not supported: only ports of tcp and udp can be published",
        ),
        (
            "target=80,protocol=sctp",
            "sctp is not supported: only ports of tcp and udp can be published",
        ),
    ] {
        assert_eq!(publish(text), Err(why.to_owned()), "{text}");
    }
}

#[test]
fn ports_are_exposed_one_by_one_and_in_ranges() {
    let expose = |text: &str| match text.parse::<Expose>() {
        Ok(Expose(range)) => Ok(range.to_string()),
        Err(error) => Err(error.to_string()),
    };
    for (text, wanted) in [
        ("80", "80/tcp"),
        ("53/udp", "53/udp"),
        ("7000-7002", "7000-7002/tcp"),
        ("7000-7002/sctp", "7000-7002/sctp"),
    ] {
        assert_eq!(expose(text), Ok(wanted.to_owned()), "{text}");
    }
    for (text, why) in [
        ("8080:80", "invalid port format for --expose: 8080:80"),
        ("", "invalid range format for --expose: "),
        ("0", "invalid range format for --expose: 0"),
        ("90-80", "invalid range format for --expose: 90-80"),
        ("http", "invalid range format for --expose: http"),
        ("80/foo", "invalid proto: foo"),
    ] {
        assert_eq!(expose(text), Err(why.to_owned()), "{text}");
    }
}

#[test]
fn sets_are_kept_as_ranges() {
    let texts = ["53/udp", "80", "82", "81/tcp", "65535", "52/udp", "80/sctp"];
    let set: PortSet = texts
        .iter()
        .flat_map(|text| text.parse::<PortRange>().unwrap().ports())
        .collect();
    let kept = Vec::from(set.clone());
    assert_eq!(kept, ["80-82/tcp", "65535/tcp", "52-53/udp", "80/sctp"]);
    assert_eq!(PortSet::try_from(kept).unwrap(), set);
    assert_eq!(set.iter().count(), 7);
    assert!(PortSet::try_from(vec!["x".to_owned()]).is_err());
    let all: PortSet = "1-65535".parse::<PortRange>().unwrap().ports().collect();
    assert_eq!(Vec::from(all), ["1-65535/tcp"]);
}
