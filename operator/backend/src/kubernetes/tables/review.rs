//! Which pod a token belongs to.

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams};

use crate::kubernetes::config::TOKEN_AUDIENCE;

/// A pod, as the API server vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodIdentity {
    pub namespace: String,
    pub pod: String,
    /// Another pod of the same name has another one.
    pub uid: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// The token is not good; another one may be.
    #[error("the token is refused: {0}")]
    Refused(String),
    /// Nothing is known of the token.
    #[error("the token could not be reviewed: {0}")]
    Unavailable(String),
}

/// Tells whose token it is.
#[async_trait]
pub trait TokenReviewer: Send + Sync + std::fmt::Debug {
    async fn review(&self, token: &str) -> Result<PodIdentity, ReviewError>;
}

/// Asks the API server.
#[derive(Clone)]
pub struct ApiReviewer(Client);

impl std::fmt::Debug for ApiReviewer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiReviewer")
    }
}

impl ApiReviewer {
    /// Needs the right to create TokenReviews.
    pub fn new(client: Client) -> Self {
        Self(client)
    }
}

#[async_trait]
impl TokenReviewer for ApiReviewer {
    async fn review(&self, token: &str) -> Result<PodIdentity, ReviewError> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]),
            },
            ..TokenReview::default()
        };
        let answer = Api::all(self.0.clone())
            .create(&PostParams::default(), &review)
            .await
            .map_err(|error| ReviewError::Unavailable(error.to_string()))?;
        identity(&answer.status.unwrap_or_default())
    }
}

/// A token counts when it is good, was made for us, and belongs to a pod.
fn identity(status: &TokenReviewStatus) -> Result<PodIdentity, ReviewError> {
    let refused = |why: &str| ReviewError::Refused(why.to_owned());
    if status.authenticated != Some(true) {
        return Err(refused(status.error.as_deref().unwrap_or("it is not valid")));
    }
    // A server that knows no audiences answers without any.
    if !status.audiences.iter().flatten().any(|audience| audience == TOKEN_AUDIENCE) {
        return Err(refused("it was made for another audience"));
    }
    let user = status.user.as_ref().ok_or_else(|| refused("it names nobody"))?;
    let extra = |key: &str| {
        let values = user.extra.as_ref()?.get(&format!("authentication.kubernetes.io/{key}"))?;
        values.first().filter(|_| values.len() == 1).cloned()
    };
    let namespace = user
        .username
        .as_deref()
        .and_then(|name| name.strip_prefix("system:serviceaccount:"))
        .and_then(|name| name.split_once(':'))
        .map(|(namespace, _)| namespace.to_owned())
        .ok_or_else(|| refused("it is no service account's"))?;
    match (extra("pod-name"), extra("pod-uid")) {
        (Some(pod), Some(uid)) => Ok(PodIdentity { namespace, pod, uid }),
        _ => Err(refused("it is bound to no pod")),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::UserInfo;

    use super::*;

    fn good() -> TokenReviewStatus {
        let extra = [("pod-name", "t-full-0"), ("pod-uid", "u1")]
            .map(|(key, value)| (format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]));
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]),
            user: Some(UserInfo {
                username: Some("system:serviceaccount:lab:default".to_owned()),
                extra: Some(extra.into()),
                ..UserInfo::default()
            }),
            error: None,
        }
    }

    #[test]
    fn a_good_token_names_its_pod() {
        let pod = PodIdentity { namespace: "lab".into(), pod: "t-full-0".into(), uid: "u1".into() };
        assert_eq!(identity(&good()).unwrap(), pod);
    }

    #[test]
    fn every_other_token_is_refused() {
        let user = |change: fn(&mut UserInfo)| {
            let mut status = good();
            change(status.user.as_mut().unwrap());
            status
        };
        let cases = [
            TokenReviewStatus { authenticated: Some(false), ..good() },
            TokenReviewStatus { authenticated: None, ..good() },
            TokenReviewStatus { audiences: None, ..good() },
            TokenReviewStatus { audiences: Some(vec!["https://kubernetes.default.svc".into()]), ..good() },
            TokenReviewStatus { user: None, ..good() },
            user(|user| user.extra = None),
            user(|user| user.username = Some("admin".into())),
            user(|user| {
                user.extra.as_mut().unwrap().remove("authentication.kubernetes.io/pod-uid").unwrap();
            }),
        ];
        for case in cases {
            assert!(matches!(identity(&case), Err(ReviewError::Refused(_))), "{case:?}");
        }
    }
}
