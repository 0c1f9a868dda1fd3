//! Where spans are sent, and which: the variables of the OpenTelemetry specification.

use std::fmt;

use clap::Args;

use super::sampler::Sampler;
use crate::settings::Mistakes;

/// What a service is told about traces. Nothing is recorded without an endpoint.
#[derive(Args, Clone, Debug, Default)]
pub struct TraceFlags {
    /// OTLP collector that gets traces, for example http://127.0.0.1:4317; none are recorded without one
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    otlp_endpoint: Option<String>,
    /// The collector's protocol: grpc or http/protobuf [default: whichever it speaks]
    #[arg(long, env = "OTEL_EXPORTER_OTLP_PROTOCOL")]
    otlp_protocol: Option<String>,
    /// Which traces are recorded: always_on, always_off, traceidratio, or the same after parentbased_
    /// [default: parentbased_always_on]
    #[arg(long, env = "OTEL_TRACES_SAMPLER")]
    traces_sampler: Option<String>,
    /// The sampler's ratio, from 0 to 1 [default: 1]
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG")]
    traces_sampler_arg: Option<String>,
    /// Record nothing, whatever else is set: true or false [default: false]
    #[arg(long, env = "OTEL_SDK_DISABLED")]
    otel_sdk_disabled: Option<String>,
}

/// The two protocols of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceProtocol {
    /// Usually at port 4317.
    Grpc,
    /// Usually at port 4318.
    HttpProtobuf,
}

/// Where spans are sent, and which.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceSettings {
    /// The collector's URL.
    pub(super) endpoint: String,
    /// `None` for whichever it speaks.
    pub(super) protocol: Option<TraceProtocol>,
    pub(super) sampler: Sampler,
}

impl TraceFlags {
    /// Checks everything; `None` if nothing is to be recorded.
    pub fn check(self, mistakes: &mut Mistakes) -> Option<TraceSettings> {
        let endpoint = mistakes.optional("OTEL_EXPORTER_OTLP_ENDPOINT", self.otlp_endpoint, None, |url| endpoint(url).map(Some));
        let protocol = mistakes.optional("OTEL_EXPORTER_OTLP_PROTOCOL", self.otlp_protocol, None, |name| protocol(name).map(Some));
        let ratio = mistakes.optional("OTEL_TRACES_SAMPLER_ARG", self.traces_sampler_arg, 1.0, ratio);
        let sampler =
            mistakes.optional("OTEL_TRACES_SAMPLER", self.traces_sampler, Sampler::default(), |name| sampler(name, ratio));
        let disabled = mistakes.optional("OTEL_SDK_DISABLED", self.otel_sdk_disabled, false, crate::settings::bool_flag);
        let endpoint = endpoint.filter(|_| !disabled)?;
        Some(TraceSettings { endpoint, protocol, sampler })
    }
}

impl TraceSettings {
    /// The specification adds the signal's path to the endpoint.
    pub(super) fn http_endpoint(&self) -> String {
        format!("{}/v1/traces", self.endpoint.trim_end_matches('/'))
    }
}

fn endpoint(value: &str) -> Result<String, String> {
    let url = crate::settings::http_url(value)?;
    if url.starts_with("https:") {
        return Err("must begin with http://: a collector runs beside the service, and TLS to others is its affair".to_owned());
    }
    Ok(url)
}

impl fmt::Display for TraceProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http/protobuf",
        })
    }
}

fn protocol(name: &str) -> Result<TraceProtocol, String> {
    match name {
        "grpc" => Ok(TraceProtocol::Grpc),
        "http/protobuf" => Ok(TraceProtocol::HttpProtobuf),
        _ => Err("must be grpc or http/protobuf".to_owned()),
    }
}

fn ratio(value: &str) -> Result<f64, String> {
    match value.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err("must be a number from 0 to 1".to_owned()),
    }
}

fn sampler(name: &str, ratio: f64) -> Result<Sampler, String> {
    let (parent_based, root) = name.strip_prefix("parentbased_").map_or((false, name), |root| (true, root));
    let ratio = match root {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => ratio,
        _ => return Err("must be always_on, always_off or traceidratio, or one of these after parentbased_".to_owned()),
    };
    Ok(Sampler { parent_based, ratio })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(flags: TraceFlags) -> Result<Option<TraceSettings>, String> {
        let mut mistakes = Mistakes::new();
        let settings = flags.check(&mut mistakes);
        mistakes.finish().map(|()| settings).map_err(|error| error.to_string())
    }

    #[expect(clippy::unnecessary_wraps, reason = "a setting as the environment has it")]
    fn some(value: &str) -> Option<String> {
        Some(value.to_owned())
    }

    #[test]
    fn nothing_is_recorded_without_a_collector_or_when_it_is_switched_off() {
        assert_eq!(checked(TraceFlags::default()), Ok(None));
        let off = TraceFlags { otlp_endpoint: some("http://c:4317"), otel_sdk_disabled: some("true"), ..TraceFlags::default() };
        assert_eq!(checked(off), Ok(None));
    }

    #[test]
    fn an_endpoint_alone_is_enough() {
        let flags = TraceFlags { otlp_endpoint: some("http://collector:4318/"), ..TraceFlags::default() };
        let settings = checked(flags).expect("no mistakes").expect("it is on");
        assert_eq!(settings.protocol, None);
        assert_eq!(settings.http_endpoint(), "http://collector:4318/v1/traces");
        assert_eq!(settings.sampler, Sampler::default());
    }

    #[test]
    fn samplers_have_the_names_of_the_specification() {
        assert_eq!(sampler("parentbased_traceidratio", 0.1), Ok(Sampler { parent_based: true, ratio: 0.1 }));
        assert_eq!(sampler("always_off", 0.1), Ok(Sampler { parent_based: false, ratio: 0.0 }));
        assert!(sampler("parentbased_", 1.0).is_err());
    }

    #[test]
    fn every_mistake_is_told() {
        let flags = TraceFlags {
            otlp_endpoint: some("collector:4317"),
            otlp_protocol: some("http/json"),
            traces_sampler: some("jaeger_remote"),
            traces_sampler_arg: some("10%"),
            otel_sdk_disabled: some("perhaps"),
        };
        let told = checked(flags).expect_err("five mistakes");
        assert!(told.starts_with("5 settings are missing or wrong:\n  OTEL_EXPORTER_OTLP_ENDPOINT: "), "{told}");
        assert!(checked(TraceFlags { otlp_endpoint: some("https://c:4317"), ..TraceFlags::default() }).is_err());
    }
}
