//! Tells the linker to pack the relocations of the program.
//!
//! A position-independent program of this size has some 80 000 of them: 1.9 MiB in the usual form,
//! which the loader reads at every start and which count as memory from then on; 40 KiB packed
//! (`DT_RELR`, glibc 2.36 and later, GNU ld 2.38 and later, lld 15 and later).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}
