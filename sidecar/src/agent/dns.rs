//! STUB by LEAD until NAMES lands: overwrite me.
use std::sync::Arc;
#[allow(missing_docs)]
pub struct DnsContext;
#[allow(missing_docs)]
impl DnsContext {
    pub fn new(
        _: &Arc<crate::process::reload::Policies>,
        _: &Arc<super::names::VirtualNames>,
        _: &Arc<crate::ledger::Ledger>,
    ) -> Self {
        Self
    }
}
#[allow(missing_docs)]
pub async fn serve_udp(_: tokio::net::UdpSocket, _: Arc<DnsContext>) {}
#[allow(missing_docs)]
pub async fn serve_tcp(_: tokio::net::TcpListener, _: Arc<DnsContext>) {}
