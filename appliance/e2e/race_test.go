//go:build race

package e2e

// raceDetector: build the daemon with it too.
const raceDetector = true
