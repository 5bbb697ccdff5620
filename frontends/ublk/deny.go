package ublk

import (
	"fmt"
	"strconv"
	"strings"
)

// Denied are the kernels on which no ublk device is made.
const Denied = "6.18.4 and 6.18.5; Ubuntu's 6.17.0-1015 to -1018 for Azure and AWS"

// DeniedHere says why none is made on this kernel, or "".
func DeniedHere() string { return denied(release()) }

// denied says why ADD_DEV must not be tried on a kernel, or "". These carry 529d4d632788 (NUMA-aware tags) without
// 011af85ccd87 and oops in ADD_DEV: 6.18.4 and 6.18.5; Ubuntu's 6.17.0-1015 to -1018 for Azure and the AWS builds of the
// same base (LP 2154635).
func denied(release string) string {
	version, build, _ := strings.Cut(release, "-")
	bad := version == "6.18.4" || version == "6.18.5"
	if version == "6.17.0" {
		abi, flavour, _ := strings.Cut(build, "-")
		n, err := strconv.Atoi(abi)
		azure, aws := strings.HasPrefix(flavour, "azure"), strings.HasPrefix(flavour, "aws")
		bad = err == nil && (azure || aws) && n >= 1015 && n <= 1018
	}
	if !bad {
		return ""
	}
	return fmt.Sprintf("kernel %s crashes when a ublk device is added (fixed in 6.18.6; Ubuntu bug 2154635)", release)
}

// miscounts tells whether a kernel hands a fixed read or write whose bytes lie in the middle of a request's, and begin
// inside one of its segments, down with a segment too few. Drivers then map other memory than they were given and write
// beyond their lists: wrong bytes, or an oops. Zero copy there wants requests of at most two parts. Fixed in 6.19, and in
// 6.18.5 (io_import_kbuf).
func miscounts(release string) bool {
	var major, minor, patch int
	_, _ = fmt.Sscanf(release, "%d.%d.%d", &major, &minor, &patch)
	return major < 6 || major == 6 && (minor < 18 || minor == 18 && patch < 5)
}
