//! Makes certificates.

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use time::OffsetDateTime;

use super::{AUTHORITY_LIFE, Pair, SERVING_LIFE, SKEW};

pub(super) fn authority(now: i64) -> Result<Pair> {
    let key = KeyPair::generate().context("making a key")?;
    let (from, until) = (now - SKEW, now - SKEW + AUTHORITY_LIFE);
    // Two authorities overlap, and have to be told apart.
    let name = format!("exeat-operator authority of {now}");
    let certificate = authority_params(&name, from, until)?
        .self_signed(&key)
        .context("making an authority")?;
    Ok(Pair {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
        from,
        until,
        name,
    })
}

pub(super) fn serving(authority: &Pair, names: &[String], now: i64) -> Result<Pair> {
    let signer = KeyPair::from_pem(&authority.key).context("reading the authority's key")?;
    let issuer = Issuer::new(
        authority_params(&authority.name, authority.from, authority.until)?,
        signer,
    );
    let key = KeyPair::generate().context("making a key")?;
    let name = names.first().cloned().unwrap_or_default();
    let (from, until) = (now - SKEW, (now - SKEW + SERVING_LIFE).min(authority.until));
    let mut params = CertificateParams::new(names.to_vec()).context("reading serving names")?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, name.as_str());
    params.not_before = time(from)?;
    params.not_after = time(until)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let certificate = params
        .signed_by(&key, &issuer)
        .context("making a serving certificate")?;
    Ok(Pair {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
        from,
        until,
        name,
    })
}

/// The same each time, so that an issuer can be made again from what is kept.
fn authority_params(name: &str, from: i64, until: i64) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = time(from)?;
    params.not_after = time(until)?;
    Ok(params)
}

fn time(seconds: i64) -> Result<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(seconds).context("a time out of range")
}
