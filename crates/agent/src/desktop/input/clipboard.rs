//! The guest's clipboard, owned while there is pasted text to give (ICCCM, section 2).

use anyhow::Result;
use x11rb::connection::Connection;
use x11rb::protocol::xproto::{
    Atom, AtomEnum, ConnectionExt as _, CreateWindowAux, EventMask, PropMode,
    SELECTION_NOTIFY_EVENT, SelectionNotifyEvent, SelectionRequestEvent, Window, WindowClass,
};
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;
use x11rb::{COPY_DEPTH_FROM_PARENT, COPY_FROM_PARENT, CURRENT_TIME};

x11rb::atom_manager! {
    Atoms: AtomsCookie {
        CLIPBOARD,
        TARGETS,
        UTF8_STRING,
        TEXT_PLAIN: b"text/plain;charset=utf-8",
    }
}

/// Owner of the CLIPBOARD selection.
pub struct Clipboard {
    window: Window,
    atoms: Atoms,
    text: String,
}

impl Clipboard {
    /// Makes the window that will own the selection.
    pub fn new(connection: &RustConnection, root: Window) -> Result<Self> {
        let atoms = Atoms::new(connection)?.reply()?;
        let window = connection.generate_id()?;
        connection.create_window(
            COPY_DEPTH_FROM_PARENT,
            window,
            root,
            0,
            0,
            1,
            1,
            0,
            WindowClass::INPUT_ONLY,
            COPY_FROM_PARENT,
            &CreateWindowAux::new(),
        )?;
        Ok(Self { window, atoms, text: String::new() })
    }

    /// Offers `text`.
    pub fn own(&mut self, connection: &RustConnection, text: &str) -> Result<()> {
        text.clone_into(&mut self.text);
        connection.set_selection_owner(self.window, self.atoms.CLIPBOARD, CURRENT_TIME)?;
        Ok(())
    }

    /// Someone else owns it now.
    pub fn forget(&mut self) {
        self.text.clear();
    }

    /// Gives the text to a program that asks.
    pub fn answer(
        &self,
        connection: &RustConnection,
        request: &SelectionRequestEvent,
    ) -> Result<()> {
        // Old clients leave the property out and mean the target (ICCCM 2.2).
        let property =
            if request.property == x11rb::NONE { request.target } else { request.property };
        let given = self.give(connection, request, property)?;
        let notify = SelectionNotifyEvent {
            response_type: SELECTION_NOTIFY_EVENT,
            sequence: 0,
            time: request.time,
            requestor: request.requestor,
            selection: request.selection,
            target: request.target,
            property: if given { property } else { x11rb::NONE },
        };
        connection.send_event(false, request.requestor, EventMask::NO_EVENT, notify)?;
        connection.flush()?;
        Ok(())
    }

    fn give(
        &self,
        connection: &RustConnection,
        request: &SelectionRequestEvent,
        property: Atom,
    ) -> Result<bool> {
        let texts = [self.atoms.UTF8_STRING, self.atoms.TEXT_PLAIN, AtomEnum::STRING.into()];
        if request.target == self.atoms.TARGETS {
            let targets = [self.atoms.TARGETS, texts[0], texts[1], texts[2]];
            connection.change_property32(
                PropMode::REPLACE,
                request.requestor,
                property,
                AtomEnum::ATOM,
                &targets,
            )?;
            return Ok(true);
        }
        if !texts.contains(&request.target) {
            return Ok(false);
        }
        connection.change_property8(
            PropMode::REPLACE,
            request.requestor,
            property,
            request.target,
            self.text.as_bytes(),
        )?;
        Ok(true)
    }
}
