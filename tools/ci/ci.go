// Package ci proves that the workflows and .ci/run are the same check: that every step of .ci/run
// runs in a workflow, that no workflow asks for a step that does not exist, and that the actions
// which the workflows use cannot be changed under them.
//
// Its tests read .ci/ and .github/, which Go's test cache does not see: run them with -count=1.
package ci
