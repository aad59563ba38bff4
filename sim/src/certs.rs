//! Certificates for development and tests: one authority and the leaves of a pair on one machine.

use std::time::SystemTime;

use host::certificate::Fingerprint;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Years that a certificate is good for: longer than anybody keeps a development setup.
const YEARS: i32 = 10;

/// A certificate and its private key, as PEM.
#[derive(Debug, Clone)]
pub struct Pem {
    /// The certificate.
    pub certificate: String,
    /// The private key, PKCS#8.
    pub key: String,
}

impl Pem {
    /// The fingerprint of the certificate, as lists of revoked ones have it.
    ///
    /// # Panics
    /// If it is none.
    pub fn fingerprint(&self) -> String {
        let der = CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("a certificate in PEM");
        Fingerprint::of(&der).to_string()
    }
}

/// An authority that signs leaves.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    year: i32,
    leaf_years: i32,
}

impl Authority {
    /// A fresh authority, good from the year before `now`.
    ///
    /// # Errors
    /// If keys cannot be made.
    pub fn new(now: SystemTime) -> Result<Self, rcgen::Error> {
        Self::named(now, "postern development authority", None)
    }

    /// The same under another name, and of an organisation.
    ///
    /// # Errors
    /// If keys cannot be made.
    pub fn named(now: SystemTime, common_name: &str, organization: Option<&str>) -> Result<Self, rcgen::Error> {
        let year = i32::from(
            Timestamp::try_from(now).unwrap_or(Timestamp::UNIX_EPOCH).strftime("%Y").to_string().parse().unwrap_or(1970_i16),
        );
        let mut params = params(common_name, (year, YEARS), Vec::new())?;
        organization.iter().for_each(|name| params.distinguished_name.push(DnType::OrganizationName, *name));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)?, year, leaf_years: YEARS })
    }

    /// From here on signs leaves that are good to the end of this year and `years - 1` more.
    pub fn sign_for_years(&mut self, years: i32) {
        self.leaf_years = years;
    }

    /// The authority's own certificate and key.
    pub fn pem(&self) -> Pem {
        Pem { certificate: self.issuer.pem(), key: self.issuer.key().serialize_pem() }
    }

    /// A certificate for a server under these DNS names and addresses.
    ///
    /// # Errors
    /// If a name is none.
    pub fn server(&self, common_name: &str, names: &[&str]) -> Result<Pem, rcgen::Error> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        self.leaf(params(common_name, (self.year, self.leaf_years), names)?, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate for a client.
    ///
    /// # Errors
    /// If keys cannot be made.
    pub fn client(&self, common_name: &str) -> Result<Pem, rcgen::Error> {
        self.leaf(params(common_name, (self.year, self.leaf_years), Vec::new())?, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A certificate for a client that has a URI among its names too, such as a SPIFFE id.
    ///
    /// # Errors
    /// If the URI is none, or keys cannot be made.
    pub fn client_of(&self, common_name: &str, uri: &str) -> Result<Pem, rcgen::Error> {
        let mut params = params(common_name, (self.year, self.leaf_years), Vec::new())?;
        params.subject_alt_names.push(SanType::URI(uri.try_into()?));
        self.leaf(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn leaf(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Result<Pem, rcgen::Error> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        Ok(Pem { certificate: params.signed_by(&key, &self.issuer)?.pem(), key: key.serialize_pem() })
    }
}

fn params(common_name: &str, (year, years): (i32, i32), names: Vec<String>) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date_time_ymd(year - 1, 1, 1);
    params.not_after = date_time_ymd(year + years, 1, 1);
    Ok(params)
}
