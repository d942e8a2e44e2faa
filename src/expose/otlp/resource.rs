//! The sender's identity: resource attributes and scope, which every request contains.
//!
//! Detected values are overridden by the standard variables, as in opentelemetry_sdk, and those by
//! `otlp.resource`.

use std::collections::BTreeMap;

use opentelemetry::{Key, KeyValue, Value};
use opentelemetry_sdk::resource::EnvResourceDetector;

use super::protobuf::{attribute, bytes, head, with_head};
use crate::host::identity::Identity;
use crate::telemetry::VERSION;

/// Default of `service.name`; Prometheus uses it as `job`.
const SERVICE: &str = "vcpu-exporter";

/// The resource and the scope, encoded.
#[derive(Debug, Clone)]
pub struct Resource {
    /// `ResourceMetrics.resource`
    resource: Vec<u8>,
    /// `ScopeMetrics.scope`
    scope: Vec<u8>,
}

impl Resource {
    /// The resource of this host.
    ///
    /// `OTEL_RESOURCE_ATTRIBUTES` overrides detected values, `service_name` (`OTEL_SERVICE_NAME`)
    /// overrides both, `own` overrides all.
    pub fn new(
        host: &Identity,
        service_name: Option<String>,
        own: &BTreeMap<String, String>,
    ) -> Self {
        let own = own.iter();
        let own = own.map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
        let service = service_name.map(|name| KeyValue::new("service.name", name));
        let all = opentelemetry_sdk::Resource::builder_empty()
            .with_attributes(found(host))
            .with_detector(Box::new(EnvResourceDetector::new()))
            .with_attributes(service)
            .with_attributes(own)
            .build();
        Self::encoded(&all)
    }

    fn encoded(attributes: &opentelemetry_sdk::Resource) -> Self {
        let mut sorted: Vec<(&Key, &Value)> = attributes.iter().collect();
        sorted.sort_by_key(|(key, _)| key.as_str());
        let mut content = Vec::new();
        for (key, value) in sorted {
            attribute(&mut content, 1, key.as_str(), &value.as_str());
        }
        let mut resource = Vec::new();
        bytes(&mut resource, 1, &content);
        let mut named = Vec::new();
        bytes(&mut named, 1, SERVICE.as_bytes());
        bytes(&mut named, 2, VERSION.as_bytes());
        let mut scope = Vec::new();
        bytes(&mut scope, 1, &named);
        Self { resource, scope }
    }

    /// A complete `ExportMetricsServiceRequest` with these metrics (fields of `ScopeMetrics`).
    pub(super) fn request(&self, metrics: &[u8]) -> Vec<u8> {
        let scoped = self.scope.len() + metrics.len();
        let of_resource = self.resource.len() + with_head(scoped);
        let mut body = Vec::with_capacity(with_head(of_resource));
        head(&mut body, 1, of_resource); // ExportMetricsServiceRequest.resource_metrics
        body.extend_from_slice(&self.resource);
        head(&mut body, 2, scoped); // ResourceMetrics.scope_metrics
        body.extend_from_slice(&self.scope);
        body.extend_from_slice(metrics);
        body
    }
}

/// Detected attributes, named as in the semantic conventions 1.27 and later. The instance is the host's name, because Prometheus uses it as the label
/// `instance`.
fn found(host: &Identity) -> impl Iterator<Item = KeyValue> {
    // Names of architectures as in GOARCH, which the conventions follow.
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let Identity { name, id, kernel } = host.clone();
    let instance = name.clone().or_else(|| id.clone());
    [
        ("service.name", Some(SERVICE.to_owned())),
        ("service.version", Some(VERSION.to_owned())),
        ("service.instance.id", instance),
        ("host.name", name),
        ("host.id", id),
        ("host.arch", Some(arch.to_owned())),
        ("os.type", Some("linux".to_owned())),
        ("os.version", kernel),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some(KeyValue::new(name, value?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use prost::Message;

    #[test]
    fn the_configuration_overrules_what_was_found() {
        let host = Identity {
            name: Some("kvm-07".to_owned()),
            id: None,
            kernel: Some("6.12.0".to_owned()),
        };
        let own = BTreeMap::from([
            ("host.name".to_owned(), "kvm-07.example.com".to_owned()),
            ("team".to_owned(), "ünï".to_owned()),
        ]);
        let resource = Resource::new(&host, Some("fleet".to_owned()), &own);
        let read = ExportMetricsServiceRequest::decode(&*resource.request(&[])).unwrap();
        let [read] = &read.resource_metrics[..] else {
            panic!("{read:?}");
        };
        let attributes = &read.resource.as_ref().unwrap().attributes;
        let get = |key: &str| {
            let mut all = attributes.iter().filter(|a| a.key == key);
            let value = all.next()?.value.clone()?.value?;
            assert!(all.next().is_none(), "{key} twice");
            Some(format!("{value:?}"))
        };
        let text = |value: &str| Some(format!("StringValue({value:?})"));
        assert_eq!(get("service.name"), text("fleet"));
        assert_eq!(get("service.instance.id"), text("kvm-07"));
        assert_eq!(get("host.name"), text("kvm-07.example.com"));
        assert_eq!(get("os.type"), text("linux"));
        assert_eq!(get("os.version"), text("6.12.0"));
        assert_eq!(get("team"), text("ünï"));
        assert_eq!(get("host.id"), None);
        let scope = read.scope_metrics[0].scope.as_ref().unwrap();
        assert_eq!((&*scope.name, &*scope.version), (SERVICE, VERSION));
    }
}
