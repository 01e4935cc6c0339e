//go:build tools

// Package tools keeps in go.mod what `cargo xtask cluster build` builds from it.
package tools

import (
	_ "helm.sh/helm/v4/cmd/helm"
)
