//! One HTTP/1.1 connection to an endpoint, plain or TLS, and the address that it goes to.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::Uri;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::error::ClientError;

/// Name resolution, TCP and TLS handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The end of a connection that takes requests.
pub(super) type Sender = SendRequest<Full<Bytes>>;

/// A base URL taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    /// Host and port as they stand in the `Host` header.
    pub authority: String,
    /// What comes before `/chat/completions`: usually `/v1`. No slash at the end.
    pub path: String,
    host: String,
    port: u16,
    scheme: Scheme,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

impl Origin {
    /// Reads a base URL. One without a path gets OpenAI's `/v1`.
    ///
    /// # Errors
    /// [`ClientError::BadUrl`] names what is wrong.
    pub fn parse(url: &str) -> Result<Self, ClientError> {
        let refuse = |problem| ClientError::BadUrl { url: url.to_owned(), problem };
        let uri: Uri = url.parse().map_err(|_error| refuse("it cannot be parsed"))?;
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            _ => return Err(refuse("it must begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| refuse("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(refuse("it must not hold a user name or password; a key goes into --api-key"));
        }
        if uri.query().is_some() {
            return Err(refuse("it must not have a query"));
        }
        let default_port = match scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        };
        let path = uri.path().trim_end_matches('/');
        Ok(Self {
            authority: authority.as_str().to_owned(),
            path: if path.is_empty() { "/v1".to_owned() } else { path.to_owned() },
            host: authority.host().trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: authority.port_u16().unwrap_or(default_port),
            scheme,
        })
    }
}

/// Opens connections to one origin.
pub(super) struct Connector {
    origin: Origin,
    /// Present for https.
    tls: Option<TlsConnector>,
}

/// What HTTP needs of a transport.
trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

impl Connector {
    pub fn new(origin: Origin) -> Self {
        let tls = (origin.scheme == Scheme::Https).then(tls_connector);
        Self { origin, tls }
    }

    /// Connects; a task of its own drives the connection until either side closes it.
    ///
    /// # Errors
    /// No address, no connection in time, a certificate that does not check out, no HTTP.
    pub async fn connect(&self) -> Result<Sender, ClientError> {
        let Origin { host, port, .. } = &self.origin;
        let address = || format!("{host}:{port}");
        let transport = tokio::time::timeout(CONNECT_TIMEOUT, self.open())
            .await
            .map_err(|_elapsed| ClientError::ConnectTimeout { address: address(), limit: CONNECT_TIMEOUT })?
            .map_err(|source| ClientError::Connect { address: address(), source })?;
        let (sender, connection) = http1::handshake(TokioIo::new(transport)).await?;
        // The error, if any, also reaches the request that is using the connection.
        tokio::spawn(async move { connection.await.ok() });
        Ok(sender)
    }

    async fn open(&self) -> io::Result<Box<dyn Transport>> {
        let stream = TcpStream::connect((self.origin.host.as_str(), self.origin.port)).await?;
        // Requests are one small write each: waiting to fill a packet would only add latency.
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(self.origin.host.clone()).map_err(io::Error::other)?;
        Ok(Box::new(tls.connect(name, stream).await?))
    }
}

fn tls_connector() -> TlsConnector {
    let roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring supports the protocol versions that it is built with: this is a bug")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_without_a_path_gets_v1() {
        let origin = Origin::parse("http://127.0.0.1:8000").expect("parses");
        assert_eq!((origin.path.as_str(), origin.port), ("/v1", 8000));
        assert_eq!(Origin::parse("http://127.0.0.1:8000/").expect("parses").path, "/v1");
        assert_eq!(Origin::parse("https://example.org/api/v2/").expect("parses").path, "/api/v2");
    }

    #[test]
    fn ports_follow_the_scheme_and_ipv6_hosts_lose_their_brackets() {
        assert_eq!(Origin::parse("https://example.org/v1").expect("parses").port, 443);
        let local = Origin::parse("http://[::1]:9000/v1").expect("parses");
        assert_eq!((local.host.as_str(), local.authority.as_str()), ("::1", "[::1]:9000"));
    }

    #[test]
    fn unusable_base_urls_are_refused_with_the_reason() {
        for url in ["", "localhost:8000", "ftp://a/v1", "http://me:secret@host/v1", "http://host/v1?key=1", "/v1"] {
            assert!(matches!(Origin::parse(url), Err(ClientError::BadUrl { .. })), "{url}");
        }
    }
}
