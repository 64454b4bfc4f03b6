//! CPU profiles as data: which x86 instruction set features a guest CPU has, before a program trips
//! over one it lacks. Pure: reads no CPUID and starts nothing.
#![forbid(unsafe_code)]

mod cpuid;
mod feature;

pub use cpuid::{CpuidDump, CpuidLeaf, DumpError, MAX_LEAVES};
pub use feature::{Feature, Location, Register, UnknownFeature};
