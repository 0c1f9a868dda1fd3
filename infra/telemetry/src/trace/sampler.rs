//! Which traces are recorded.

use super::TraceContext;

/// How many bits of a trace's id are random, and the same for everybody who decides (W3C Trace Context, level 2): the low ones.
const BITS: u32 = 56;

/// The samplers of the OpenTelemetry specification that need no server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sampler {
    /// Whether a trace that somebody upstream began is theirs to decide on.
    pub(super) parent_based: bool,
    /// Which part of the others is recorded, from 0 to 1.
    pub(super) ratio: f64,
}

impl Default for Sampler {
    /// `parentbased_always_on`, as the specification wants it.
    fn default() -> Self {
        Self { parent_based: true, ratio: 1.0 }
    }
}

impl Sampler {
    /// Whether a span that follows on `context` is recorded; `is_root` if nothing upstream has said so.
    pub(super) fn samples(&self, context: &TraceContext, is_root: bool) -> bool {
        if self.parent_based && !is_root {
            return context.is_sampled();
        }
        #[expect(clippy::cast_precision_loss, reason = "52 bits are precise enough for a ratio")]
        let share = (context.trace_number() & ((1 << BITS) - 1)) as f64 / (1_u64 << BITS) as f64;
        share < self.ratio
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parents_decision_is_followed_and_a_root_is_decided_by_its_id() {
        let (sampled, not) = (TraceContext::new().with_sampled(true), TraceContext::new());
        let never = Sampler { parent_based: true, ratio: 0.0 };
        assert!(never.samples(&sampled, false));
        assert!(!never.samples(&sampled, true));
        assert!(!Sampler::default().samples(&not, false));
        assert!(Sampler::default().samples(&not, true));
        let always = Sampler { parent_based: false, ratio: 1.0 };
        assert!(always.samples(&not, false));
    }

    #[test]
    fn about_so_many_traces_are_recorded_as_the_ratio_says() {
        let quarter = Sampler { parent_based: true, ratio: 0.25 };
        let sampled = (0..10_000).filter(|_| quarter.samples(&TraceContext::new(), true)).count();
        assert!((2_000..3_000).contains(&sampled), "{sampled} of 10,000");
    }
}
