//! `policy.json` and keys, with signatures as cosign makes them.

use crate::fake::{Asked, Fake, Reply};
use crate::fixture::{
    Host, Image, MANIFEST, amd64, blob, descriptor, line, manifest, name, resolve,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hullbox_registry::{Digest, Resolution};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;

/// Who signs.
struct Signer {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl Signer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
        Self { pair, random }
    }

    /// The public key as cosign writes it.
    fn pem(&self) -> String {
        // SubjectPublicKeyInfo of a P-256 key, up to the point.
        let head = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgA";
        let mut der = STANDARD.decode(format!("{head}E")).unwrap();
        der.pop();
        der.extend_from_slice(self.pair.public_key().as_ref());
        format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            STANDARD.encode(der)
        )
    }

    fn sign(&self, message: &[u8]) -> String {
        STANDARD.encode(self.pair.sign(&self.random, message).unwrap())
    }
}

/// A payload, as cosign has it.
fn payload(digest: Digest, name: &str) -> Vec<u8> {
    json!({
        "critical": {
            "identity": {"docker-reference": name},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        },
        "optional": null,
    })
    .to_string()
    .into_bytes()
}

/// A payload with its signature.
type Signed = (Vec<u8>, String);

/// The image of signatures.
fn signatures(all: &[Signed]) -> Image {
    let mut image = Image::new(all.iter().map(|(payload, _)| payload.clone()).collect());
    let layers: Vec<_> = all
        .iter()
        .map(|(payload, signature)| {
            let mut own = descriptor(payload, "application/vnd.dev.cosign.simplesigning.v1+json");
            own.annotations.insert(
                "dev.cosignproject.cosign/signature".to_owned(),
                signature.clone(),
            );
            own
        })
        .collect();
    image.manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": image.config(),
        "layers": layers,
    })
    .to_string()
    .into_bytes();
    image
}

/// A registry with an image and what is signed of it.
async fn registry(image: &Image, signed: Option<Image>) -> Fake {
    let image = image.clone();
    let tag = format!("/sha256-{}.sig", image.fetched().digest.hex());
    let reply = move |asked: &Asked| {
        let Some(signed) = &signed else {
            return match asked.path.ends_with(".sig") {
                true => Reply::not_found(),
                false => image.reply(asked),
            };
        };
        if asked.path.ends_with(&tag) {
            return manifest(&signed.manifest, MANIFEST);
        }
        let payloads = signed.layers.iter();
        match { payloads }.find(|own| asked.path.ends_with(&Digest::of(own).to_string())) {
            Some(own) => blob(own, asked),
            None => image.reply(asked),
        }
    };
    Fake::start(reply).await
}

#[tokio::test]
async fn a_key_accepts_what_it_has_signed_and_nothing_else() {
    let (signer, other) = (Signer::new(), Signer::new());
    let image = Image::small();
    let digest = image.fetched().digest;
    let other_digest = Digest::of(b"other");
    // The registry's port is known only later; its name is rewritten instead.
    let at = "reg.test/x";
    let good = payload(digest, at);
    let for_other = payload(other_digest, at);
    let for_name = payload(digest, "reg.test/y");
    let junk = b"{}".to_vec();
    let cases: [(&str, Option<Vec<Signed>>, &str); 8] = [
        ("signed", Some(vec![(good.clone(), signer.sign(&good))]), ""),
        (
            "signed twice",
            Some(vec![
                (junk.clone(), other.sign(&junk)),
                (good.clone(), signer.sign(&good)),
            ]),
            "",
        ),
        ("unsigned", None, "it has no signature"),
        ("no signatures", Some(vec![]), "it has no signature"),
        (
            "other key",
            Some(vec![(good.clone(), other.sign(&good))]),
            "none of its 1 signatures is valid: it is not by the key",
        ),
        (
            "other image",
            Some(vec![(for_other.clone(), signer.sign(&for_other))]),
            &format!("it is for {other_digest}"),
        ),
        (
            "other name",
            Some(vec![(for_name.clone(), signer.sign(&for_name))]),
            "it is for the name \"reg.test/y\"",
        ),
        (
            "junk",
            Some(vec![(junk.clone(), signer.sign(&junk))]),
            "not cosign's JSON",
        ),
    ];
    for (case, signed, word) in cases {
        let fake = registry(&image, signed.map(|all| signatures(&all))).await;
        let mut host = Host::new();
        host.registries(&format!(
            "[[registry]]\nprefix = 'reg.test'\nlocation = '{}'\n",
            fake.host()
        ));
        host.options.verify_key = Some(host.write("cosign.pub", signer.pem()));
        let outcome = resolve(&host.client(), "reg.test/x:1").await;
        if word.is_empty() {
            assert_eq!(outcome.unwrap().digest(), digest, "{case}");
            // What is there already is looked at too.
            let client = host.client();
            let known = client
                .resolve(&name("reg.test/x:1"), &amd64(), Some(&digest))
                .await;
            assert!(matches!(known.unwrap(), Resolution::Image(_)), "{case}");
        } else {
            let text = line(&outcome.unwrap_err());
            assert!(
                text.starts_with("reg.test/x:1 is refused: "),
                "{case}: {text}"
            );
            assert!(text.contains(word), "{case}: {text}");
        }
    }
}

#[tokio::test]
async fn the_policy_is_obeyed() {
    let signer = Signer::new();
    let image = Image::small();
    let good = payload(image.fetched().digest, "reg.test/signed/x");
    let signed = signatures(&[(good.clone(), signer.sign(&good))]);
    let fake = registry(&image, Some(signed)).await;
    let host = Host::new();
    host.registries(&format!(
        "[[registry]]\nprefix = 'reg.test'\nlocation = '{}'\n",
        fake.host()
    ));
    let key = host.write("cosign.pub", signer.pem());
    let demand = json!([{
        "type": "sigstoreSigned",
        "keyPath": key,
        "signedIdentity": {"type": "matchRepository"},
    }]);
    let policy = json!({
        "default": [{"type": "reject"}],
        "transports": {"docker": {
            "reg.test/open": [{"type": "insecureAcceptAnything"}],
            "reg.test/signed": demand,
            "reg.test/other": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}],
        }},
    });
    host.write("etc/containers/policy.json", policy.to_string());
    let client = host.client();
    resolve(&client, "reg.test/open/x:1").await.unwrap();
    resolve(&client, "reg.test/signed/x:1").await.unwrap();
    let asked = fake.asked().len();
    for (target, why) in [
        ("reg.test/x:1", "policy.json rejects it"),
        (
            "reg.test/other/x:1",
            "policy.json demands \"signedBy\", which is not supported",
        ),
    ] {
        let text = line(&resolve(&client, target).await.unwrap_err());
        assert_eq!(text, format!("{target} is refused: {why}"));
    }
    // What is refused in any case is not asked for.
    assert_eq!(fake.asked().len(), asked);
    let text = line(&resolve(&client, "reg.test/signed/y:1").await.unwrap_err());
    assert!(text.contains("it is for the name"), "{text}");
    // Of an index and what it leads to one signature is enough.
    let (digest, other) = (image.fetched().digest, Digest::of(b"index"));
    let signed = name("reg.test/signed/x:1");
    assert!(client.wants_signatures(&signed));
    client.allows(&signed, &[digest]).await.unwrap();
    client.allows(&signed, &[other, digest]).await.unwrap();
    assert!(client.allows(&signed, &[other]).await.is_err());
    client.may_ask(&signed).await.unwrap();
    assert!(client.may_ask(&name("reg.test/x:1")).await.is_err());
    assert!(!client.wants_signatures(&name("reg.test/open/x:1")));
}

#[tokio::test]
async fn a_key_that_is_none_is_an_error_before_anything_is_asked() {
    let mut host = Host::new();
    for (content, word) in [
        ("hello", "no section PUBLIC KEY"),
        ("", "no section PUBLIC KEY"),
    ] {
        host.options.verify_key = Some(host.write("k.pub", content));
        let settings = hullbox_registry::Settings::load(host.places.clone()).unwrap();
        let error = hullbox_registry::Client::new(settings.into(), host.options.clone());
        assert!(line(&error.unwrap_err()).contains(word));
    }
}
