package main

import (
	"strings"
	"testing"

	"glidefs-appliance/appliance/api"
)

func TestStatusTellsOfLostObjects(t *testing.T) {
	var out strings.Builder
	if err := printStatus(&out, []api.Disk{{Name: "sound"}, {Name: "hurt", Lost: 2}}, "running"); err != nil {
		t.Fatal(err)
	}
	if s := out.String(); !strings.Contains(s, "hurt: objects in the store that are gone or damaged: 2; `verify hurt`") || strings.Contains(s, "verify sound") {
		t.Error(s)
	}
}
