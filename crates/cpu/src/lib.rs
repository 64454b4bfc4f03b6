//! CPU profiles as data: which x86 instruction set features a guest CPU has, before a program trips
//! over one it lacks. Pure but for [`this_machine`], which reads CPUID; starts nothing.
//!
//! [`Feature`] says where CPUID reports an extension, [`CpuidDump`] is what one CPU reports,
//! [`CpuProfile`] is a CPU by name, by Firecracker template or by dump, and [`qemu_cpu_model`] and
//! [`firecracker_template`] say it in the words of a virtual machine monitor.

mod bitmap;
mod convert;
mod cpuid;
mod feature;
mod here;
mod profile;
mod template;

pub use bitmap::{Bitmap, InvalidBitmap};
pub use convert::{ConvertError, QemuCpu, firecracker_template, qemu_cpu_model};
pub use cpuid::{CpuidDump, CpuidLeaf, DumpError, MAX_LEAVES};
pub use feature::{Feature, Location, Register, UnknownFeature};
pub use here::this_machine;
pub use profile::{Content, CpuProfile, ProfileError};
pub use template::{
    LeafModifier, MAX_TEMPLATE_BYTES, MsrModifier, RegisterModifier, Standing, Template,
    TemplateError,
};
