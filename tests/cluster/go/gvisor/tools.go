//go:build tools

// Package tools keeps in go.mod what `cargo xtask cluster build` builds from it.
package tools

import (
	_ "gvisor.dev/gvisor/runsc"
	_ "gvisor.dev/gvisor/shim"
)
