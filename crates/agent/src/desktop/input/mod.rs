//! What the end user does, done in X: keys by place, text, pointer, paste.

mod clipboard;
mod keyboard;

use std::collections::BTreeSet;
use std::os::fd::AsFd;

use anteroom_guest_link::{LinkError, LinkStream, read_message};
use anteroom_guest_protocol::MAX_INPUT_MESSAGE;
use anteroom_guest_protocol::input::{InputEvent, PointerButton};
use anyhow::{Context, Result};
use x11rb::connection::Connection;
use x11rb::protocol::Event;
use x11rb::protocol::xproto::{
    AutoRepeatMode, BUTTON_PRESS_EVENT, BUTTON_RELEASE_EVENT, ChangeKeyboardControlAux,
    ConnectionExt as _, KEY_PRESS_EVENT, KEY_RELEASE_EVENT, MOTION_NOTIFY_EVENT, Window,
};
use x11rb::protocol::xtest::ConnectionExt as _;
use x11rb::rust_connection::RustConnection;

use crate::desktop::display::server::DisplayAddress;
use crate::desktop::mailbox::{Letter, Mailbox, Post, mailbox};
use crate::report::Reporter;

/// X keycodes are evdev codes plus 8 (the X protocol reserves the first eight).
const EVDEV_OFFSET: u8 = 8;

/// X buttons of the wheel: up, down, left, right (X11 convention).
const WHEEL: [u8; 4] = [4, 5, 6, 7];

/// Takes input events. Cheap to clone.
#[derive(Clone)]
pub struct Input(Mailbox<InputEvent>);

impl Input {
    /// Starts the input thread. It ends with the X server or with the last `Input`.
    pub fn start(address: &DisplayAddress, reporter: Reporter) -> Result<Self> {
        let (sender, post) = mailbox()?;
        let injector = Injector::new(address)?;
        std::thread::Builder::new().name("input".into()).spawn(move || {
            if let Err(error) = injector.run(&post) {
                reporter.note(&format!("the input to the desktop ended: {error:#}"));
            }
        })?;
        Ok(Self(sender))
    }
}

/// Takes events from the host's input stream until it ends. The host has checked them already; the
/// checks are repeated because they cost nothing.
pub async fn serve_input(mut stream: LinkStream, input: Input) -> Result<(), LinkError> {
    while let Some(event) = read_message::<InputEvent, _>(&mut stream, MAX_INPUT_MESSAGE).await? {
        if let Ok(event) = event.checked()
            && !input.0.send(event)
        {
            break;
        }
    }
    input.0.send(InputEvent::ReleaseAll {});
    Ok(())
}

struct Injector {
    connection: RustConnection,
    root: Window,
    keyboard: keyboard::Keyboard,
    clipboard: clipboard::Clipboard,
    held_keys: BTreeSet<u8>,
    held_buttons: BTreeSet<u8>,
}

impl Injector {
    fn new(address: &DisplayAddress) -> Result<Self> {
        let connection = address.connect()?;
        let root = connection.setup().roots[0].root;
        connection
            .xtest_get_version(2, 2)?
            .reply()
            .context("the X server has no XTEST extension")?;
        // The viewer sends its own repeats; two sources would double letters on a slow guest.
        let repeat_off = ChangeKeyboardControlAux::new().auto_repeat_mode(AutoRepeatMode::OFF);
        connection.change_keyboard_control(&repeat_off)?;
        let keyboard = keyboard::Keyboard::read(&connection)?;
        let clipboard = clipboard::Clipboard::new(&connection, root)?;
        let (held_keys, held_buttons) = (BTreeSet::new(), BTreeSet::new());
        Ok(Self { connection, root, keyboard, clipboard, held_keys, held_buttons })
    }

    fn run(mut self, post: &Post<InputEvent>) -> Result<()> {
        loop {
            while let Some(event) =
                self.connection.poll_for_event().context("the X server is gone")?
            {
                match event {
                    Event::SelectionRequest(request) => {
                        self.clipboard.answer(&self.connection, &request)?
                    }
                    Event::SelectionClear(_) => self.clipboard.forget(),
                    _ => {}
                }
            }
            match post.take() {
                Letter::Message(event) => self.apply(&event)?,
                Letter::Empty => {
                    self.connection.flush()?;
                    post.wait(self.connection.stream().as_fd())?;
                }
                Letter::Closed => return Ok(()),
            }
        }
    }

    fn apply(&mut self, event: &InputEvent) -> Result<()> {
        match event {
            InputEvent::PointerMove { x, y } => {
                let (x, y) = (clamp(*x), clamp(*y));
                self.connection.xtest_fake_input(MOTION_NOTIFY_EVENT, 0, 0, self.root, x, y, 0)?;
            }
            InputEvent::PointerButton { button, pressed } => {
                let button = match button {
                    PointerButton::Left => 1,
                    PointerButton::Middle => 2,
                    PointerButton::Right => 3,
                };
                self.button(button, *pressed)?;
            }
            InputEvent::Scroll { dx, dy } => self.scroll(*dx, *dy)?,
            InputEvent::Key { code, pressed } => self.key(code.evdev() + EVDEV_OFFSET, *pressed)?,
            InputEvent::Text { text } => self.type_text(text)?,
            InputEvent::Paste { text } => {
                self.clipboard.own(&self.connection, text)?;
                self.press_paste()?;
            }
            InputEvent::ReleaseAll {} => self.release_all()?,
        }
        self.connection.flush()?;
        Ok(())
    }

    fn key(&mut self, keycode: u8, pressed: bool) -> Result<()> {
        if pressed {
            if !self.held_keys.insert(keycode) {
                // A repeat of the viewer's keyboard.
                self.connection.xtest_fake_input(
                    KEY_RELEASE_EVENT,
                    keycode,
                    0,
                    self.root,
                    0,
                    0,
                    0,
                )?;
            }
        } else {
            self.held_keys.remove(&keycode);
        }
        let kind = if pressed { KEY_PRESS_EVENT } else { KEY_RELEASE_EVENT };
        self.connection.xtest_fake_input(kind, keycode, 0, self.root, 0, 0, 0)?;
        Ok(())
    }

    fn button(&mut self, button: u8, pressed: bool) -> Result<()> {
        if pressed {
            self.held_buttons.insert(button);
        } else {
            self.held_buttons.remove(&button);
        }
        let kind = if pressed { BUTTON_PRESS_EVENT } else { BUTTON_RELEASE_EVENT };
        self.connection.xtest_fake_input(kind, button, 0, self.root, 0, 0, 0)?;
        Ok(())
    }

    fn scroll(&mut self, dx: i16, dy: i16) -> Result<()> {
        let [up, down, left, right] = WHEEL;
        for (notches, negative, positive) in [(dy, up, down), (dx, left, right)] {
            let button = if notches < 0 { negative } else { positive };
            for _ in 0..notches.unsigned_abs() {
                self.button(button, true)?;
                self.button(button, false)?;
            }
        }
        Ok(())
    }

    /// Text by keys of the layout where it has them, by a borrowed key where it has not.
    fn type_text(&mut self, text: &str) -> Result<()> {
        // Held modifiers would turn text into shortcuts.
        self.release_all()?;
        for character in text.chars() {
            let stroke = self.keyboard.stroke(&self.connection, character)?;
            if stroke.shift {
                self.key(self.keyboard.shift, true)?;
            }
            self.key(stroke.keycode, true)?;
            self.key(stroke.keycode, false)?;
            if stroke.shift {
                self.key(self.keyboard.shift, false)?;
            }
        }
        Ok(())
    }

    fn press_paste(&mut self) -> Result<()> {
        self.release_all()?;
        let v = self.keyboard.stroke(&self.connection, 'v')?;
        let control = self.keyboard.control;
        self.key(control, true)?;
        self.key(v.keycode, true)?;
        self.key(v.keycode, false)?;
        self.key(control, false)
    }

    fn release_all(&mut self) -> Result<()> {
        for keycode in std::mem::take(&mut self.held_keys) {
            self.key(keycode, false)?;
        }
        for button in std::mem::take(&mut self.held_buttons) {
            self.button(button, false)?;
        }
        Ok(())
    }
}

fn clamp(coordinate: u16) -> i16 {
    i16::try_from(coordinate).unwrap_or(i16::MAX)
}
