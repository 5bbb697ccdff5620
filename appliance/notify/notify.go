// Package notify tells systemd how the service is; without systemd it does nothing.
package notify

import "github.com/coreos/go-systemd/v22/daemon"

// Ready says that the service does its work.
func Ready() { send(daemon.SdNotifyReady) }

// Stopping says that the service ends.
func Stopping() { send(daemon.SdNotifyStopping) }

// Status is the line that `systemctl status` shows.
func Status(text string) { send("STATUS=" + text) }

func send(state string) {
	const keepEnv = false
	_, _ = daemon.SdNotify(keepEnv, state) // it only informs; nobody would act on an error
}
