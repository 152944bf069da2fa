//! Login and logout: credentials are tried at the registry before they are kept.

use crate::ask::{Shared, expect};
use crate::auth::{Auth, Scope};
use crate::error::{LoginError, RequestError};
use crate::names::{DOCKER_HUB, registry_is_valid, shown};
use crate::notice::{Notice, Observer};
use crate::settings::credentials::{Credentials, look_up};
use crate::settings::keep::{Kept, forget, keep};
use crate::settings::registries::Endpoint;
use crate::settings::{Secret, Settings};
use crate::transport::{Call, Timing, Transport};
use std::sync::Arc;

/// What a login has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedIn {
    /// Where the credentials are: a file, or a helper's name.
    pub kept_in: String,
    /// Whether they lie there unencrypted.
    pub is_plain: bool,
}

/// What came of credentials that are kept already.
#[derive(Debug)]
pub struct StoredLogin {
    /// The user's name, where they have one.
    pub user: Option<String>,
    /// Whether the registry takes them.
    pub outcome: Result<(), LoginError>,
}

/// The registry that is meant: Docker takes a URL too, and nothing for Docker Hub.
pub(crate) fn server(typed: &str) -> Result<String, LoginError> {
    let host = typed
        .strip_prefix("https://")
        .or_else(|| typed.strip_prefix("http://"))
        .unwrap_or(typed);
    let host = host.split('/').next().unwrap_or_default();
    if !host.is_empty() && !registry_is_valid(host) || host.is_empty() && !typed.is_empty() {
        return Err(LoginError::Server(shown(typed)));
    }
    Ok(match host {
        "" | "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB.to_owned(),
        other => other.to_owned(),
    })
}

/// See [`crate::Client::login`].
pub(crate) async fn login(
    settings: &Arc<Settings>,
    timing: Timing,
    observer: Option<Observer>,
    typed: &str,
    user: &str,
    password: &str,
) -> Result<LoggedIn, LoginError> {
    let server = server(typed)?;
    let mut credentials = Credentials::Password {
        user: user.to_owned(),
        password: Secret::new(password),
    };
    let transport = Transport::new(settings, timing);
    let auth = Auth::given(&server, credentials.clone());
    let shared = Shared::new(settings.clone(), transport, auth, observer);
    match try_out(&shared, &server).await {
        Ok(Some(token)) => credentials = Credentials::Identity(token),
        Ok(None) => {}
        Err(RequestError::Denied { .. }) => return Err(LoginError::Refused { server }),
        Err(source) => return Err(LoginError::Request { server, source }),
    }
    let (settings, name) = (settings.clone(), server.clone());
    // A helper is a program, and a lock may be held.
    let kept = tokio::task::spawn_blocking(move || keep(&settings.places, &name, &credentials));
    let failed = |source| LoginError::Store { server, source };
    match kept.await {
        Ok(Ok(Kept::File(path))) => Ok(LoggedIn {
            kept_in: path.display().to_string(),
            is_plain: true,
        }),
        Ok(Ok(Kept::Helper(name))) => Ok(LoggedIn {
            kept_in: format!("docker-credential-{name}"),
            is_plain: false,
        }),
        Ok(Err(source)) => Err(failed(source)),
        Err(_) => Err(failed(crate::settings::SettingsError::Helper {
            helper: "login".to_owned(),
            why: "the thread that keeps them ended early".to_owned(),
        })),
    }
}

/// See [`crate::Client::login_stored`].
pub(crate) async fn login_stored(
    settings: &Arc<Settings>,
    timing: Timing,
    observer: Option<Observer>,
    typed: &str,
) -> Result<Option<StoredLogin>, LoginError> {
    let server = server(typed)?;
    let warn = observer.clone();
    let (own, name) = (settings.clone(), server.clone());
    // A helper is a program.
    let looked_up = tokio::task::spawn_blocking(move || {
        let warn = |text| {
            if let Some(observer) = &warn {
                observer(Notice::Warning(text));
            }
        };
        look_up(&own.places, &name, "", &warn)
    });
    let request = |source| LoginError::Request {
        server: server.clone(),
        source,
    };
    let credentials = match looked_up.await {
        Ok(Ok(Some(credentials))) => credentials,
        Ok(Ok(None)) | Err(_) => return Ok(None),
        Ok(Err(source)) => return Err(request(source.into())),
    };
    let user = match &credentials {
        Credentials::Password { user, .. } => Some(user.clone()),
        Credentials::Identity(_) => None,
    };
    let transport = Transport::new(settings, timing);
    let auth = Auth::given(&server, credentials);
    let shared = Shared::new(settings.clone(), transport, auth, observer);
    let outcome = match try_out(&shared, &server).await {
        Ok(_) => Ok(()),
        Err(RequestError::Denied { .. }) => Err(LoginError::Refused {
            server: server.clone(),
        }),
        Err(source) => Err(request(source)),
    };
    Ok(Some(StoredLogin { user, outcome }))
}

/// Asks the registry whether it takes the credentials; a refresh token, if it gives one for them.
async fn try_out(shared: &Shared, server: &str) -> Result<Option<Secret>, RequestError> {
    let endpoint = Endpoint::of_registry(server, &shared.settings.registries);
    let call = Call::get(String::new());
    let answer = shared.ask(&endpoint, &Scope::default(), &call).await?;
    expect(shared, answer, &[200]).await?;
    shared.identity(&endpoint).await
}

/// See [`crate::Client::logout`].
pub(crate) fn logout(settings: &Settings, typed: &str) -> Result<bool, LoginError> {
    let server = server(typed)?;
    forget(&settings.places, &server).map_err(|source| LoginError::Store { server, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_typed_in_many_ways() {
        for (typed, meant) in [
            ("", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "docker.io"),
            ("http://localhost:5000", "localhost:5000"),
            ("q.io/team", "q.io"),
        ] {
            assert_eq!(server(typed).unwrap(), meant, "{typed}");
        }
        for bad in ["https://", "a b", "q.io:x", "/"] {
            assert!(server(bad).is_err(), "{bad}");
        }
    }
}
