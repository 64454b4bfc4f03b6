//! Builds the C shim over libvpx and links the system's libvpx dynamically.

fn main() {
    println!("cargo::rerun-if-changed=csrc");
    let vpx = match pkg_config::Config::new().atleast_version("1.8").probe("vpx") {
        Ok(vpx) => vpx,
        Err(cause) => {
            println!(
                "cargo::error=looking for libvpx 1.8 or later with pkg-config failed; on Debian or \
                 Ubuntu: apt-get install libvpx-dev pkg-config"
            );
            for line in cause.to_string().lines() {
                println!("cargo::error={line}");
            }
            return;
        }
    };
    cc::Build::new()
        .files(["csrc/vpx_shim.c", "csrc/vpx_decoder_shim.c"])
        .includes(&vpx.include_paths)
        .std("c11")
        .warnings(true)
        .extra_warnings(true)
        .compile("anteroom_vpx_shim");
    // The shim refers to libvpx, so libvpx has to come after it.
    for lib in &vpx.libs {
        println!("cargo::rustc-link-lib=dylib={lib}");
    }
}
