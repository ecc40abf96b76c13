//! Lines over the time of a run, as SVG: axes, fault bands, one line a series.

use std::fmt::Write as _;

use maud::{Markup, html};

/// In SVG units; the page scales it.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 28.0;
/// Names below a chart; more would hide it.
const NAMED: usize = 12;

/// One line. A point without a value is a gap.
pub struct Line {
    pub name: String,
    /// Seconds since the start, and the value.
    pub points: Vec<(f64, Option<f64>)>,
}

/// Something that lasted, behind the lines. Seconds.
pub struct Band {
    pub name: String,
    pub from: f64,
    pub to: f64,
}

pub struct Chart<'a> {
    pub title: &'a str,
    pub unit: &'a str,
    /// Seconds.
    pub lasts: f64,
    pub lines: Vec<Line>,
    pub bands: &'a [Band],
}

impl Chart<'_> {
    /// Nothing, if no line has a point.
    pub fn render(&self) -> Markup {
        let values = || self.lines.iter().flat_map(|line| &line.points).filter_map(|(_, value)| *value);
        if values().next().is_none() {
            return html! {};
        }
        let axis = round(values().fold(0.0, f64::max));
        let top = axis.0;
        let lasts = self.lasts.max(1.0);
        let x = |seconds: f64| LEFT + (WIDTH - LEFT - RIGHT) * (seconds / lasts).clamp(0.0, 1.0);
        let y = |value: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value / top).clamp(0.0, 1.0);
        html! {
            figure {
                figcaption { (self.title) @if !self.unit.is_empty() { span.unit { " " (self.unit) } } }
                svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(self.title) {
                    @for band in self.bands {
                        rect.band x=(x(band.from)) y=(TOP) width=((x(band.to) - x(band.from)).max(1.0))
                            height=(HEIGHT - TOP - BOTTOM) {}
                        text.bandname x=(x(band.from) + 4.0) y=(TOP - 6.0) { (band.name) }
                    }
                    @for tick in ticks(axis) {
                        line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(y(tick)) y2=(y(tick)) {}
                        text.tick x=(LEFT - 6.0) y=(y(tick) + 4.0) text-anchor="end" { (number(tick)) }
                    }
                    @for tick in ticks(round(lasts)).into_iter().filter(|tick| *tick <= lasts) {
                        text.tick x=(x(tick)) y=(HEIGHT - BOTTOM + 18.0) text-anchor="middle" { (number(tick)) " s" }
                    }
                    @for (place, line) in self.lines.iter().enumerate() {
                        path.line d=(path(&line.points, x, y)) stroke=(colour(place, self.lines.len())) {
                            title { (line.name) }
                        }
                    }
                }
                @if self.lines.len() > 1 && self.lines.len() <= NAMED {
                    p.legend {
                        @for (place, line) in self.lines.iter().enumerate() {
                            span { i style={ "background:" (colour(place, self.lines.len())) } {} (line.name) }
                        }
                    }
                }
            }
        }
    }
}

fn path(points: &[(f64, Option<f64>)], x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) -> String {
    let mut d = String::new();
    let mut pen_is_down = false;
    for (at, value) in points {
        let Some(value) = value else {
            pen_is_down = false;
            continue;
        };
        let verb = if pen_is_down { 'L' } else { 'M' };
        write!(d, "{verb}{:.1} {:.1}", x(*at), y(*value)).expect("writing to a String succeeds");
        pen_is_down = true;
    }
    d
}

/// Round numbers between 1 and 10, each with the steps that lead to it.
const ROUND: [(f64, u32); 8] =
    [(1.0, 5), (2.0, 4), (3.0, 3), (4.0, 4), (5.0, 5), (6.0, 3), (8.0, 4), (10.0, 5)];

/// The next round number that is not smaller, and the steps that lead to it.
fn round(value: f64) -> (f64, u32) {
    if value <= 0.0 {
        return (1.0, 5);
    }
    let power = 10f64.powf(value.log10().floor());
    let found =
        ROUND.into_iter().map(|(round, steps)| (round * power, steps)).find(|(round, _)| *round >= value);
    found.unwrap_or((value, 5))
}

/// From 0 to a round number.
fn ticks((top, steps): (f64, u32)) -> Vec<f64> {
    (0..=steps).map(|step| top * f64::from(step) / f64::from(steps)).collect()
}

fn number(value: f64) -> String {
    if value >= 10.0 || value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// Far apart around the circle, readable on light and dark.
fn colour(place: usize, of: usize) -> String {
    let hue = (210 + place * 360 / of.max(1)) % 360;
    format!("hsl({hue} 65% 48%)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, end) in [(0.0, 1.0), (0.25, 0.3), (7.0, 8.0), (10.0, 10.0), (11.0, 20.0), (270.0, 300.0)]
        {
            assert!((round(value).0 - end).abs() < 1e-9, "{value} in an axis up to {}", round(value).0);
        }
        assert_eq!(ticks(round(15.0)), [0.0, 5.0, 10.0, 15.0, 20.0]);
        assert_eq!(ticks(round(54.0)), [0.0, 20.0, 40.0, 60.0]);
    }

    #[test]
    fn a_gap_lifts_the_pen() {
        let points = [(0.0, Some(1.0)), (1.0, None), (2.0, Some(2.0)), (3.0, Some(3.0))];
        assert_eq!(path(&points, |x| x, |y| y), "M0.0 1.0M2.0 2.0L3.0 3.0");
    }

    #[test]
    fn a_chart_without_a_value_is_left_out() {
        let lines = vec![Line { name: "a".into(), points: vec![(0.0, None)] }];
        let chart = Chart { title: "t", unit: "", lasts: 1.0, lines, bands: &[] };
        assert_eq!(chart.render().into_string(), "");
    }
}
