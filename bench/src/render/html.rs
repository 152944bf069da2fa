//! The report as one page that needs nothing else: no script, no font, no picture from elsewhere.

use super::escape::escape;
use super::figure::{figure, ratio};
use super::plot::plot;
use crate::metrics::{METRICS, Probe};
use crate::report::{Digests, Host, REFERENCE, Report, Row};
use std::fmt::Write as _;

const STYLE: &str = include_str!("page.css");

/// What each group is about.
const fn heading(probe: Probe) -> &'static str {
    match probe {
        Probe::Start => "Starting a container",
        Probe::Exec => "Starting a program in one that runs",
        Probe::Memory => "Memory of one idle instance",
        Probe::Density => "Many at once",
        Probe::Kernel => "What the kernel costs",
        Probe::Process => "Processes",
        Probe::Cpu => "Plain computing",
        Probe::Disk => "The writable layer",
        Probe::Files => "Many small files",
        Probe::Streams => "Standard streams",
        Probe::Network => "Network",
    }
}

/// One self-contained page, for light and dark screens.
#[must_use]
pub fn html(report: &Report) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src \
         'unsafe-inline'\">\n<title>VM or container? A measured answer</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n"
    );
    introduce(&mut page, report);
    overview(&mut page, report);
    for probe in Probe::ALL {
        group(&mut page, report, probe);
    }
    circumstances(&mut page, report);
    page.push_str("</body>\n</html>\n");
    page
}

fn introduce(page: &mut String, report: &Report) {
    let host = &report.host;
    let _ = write!(
        page,
        "<h1>VM or container? A measured answer</h1>\n<p class=\"lead\">The same image, the same \
         bytes and the same program in each container, on {} × {}, Linux {}. {}, after {} of \
         warm-up; in each round the contenders take turns, and nobody starts before the one \
         before has left nothing behind.</p>\n",
        host.cpus,
        escape(&host.cpu_model),
        escape(&host.kernel),
        rounds(report.rounds),
        rounds(report.warm_ups),
    );
    if let Some(outer) = &report.outer_host {
        let _ = writeln!(
            page,
            "<p class=\"note\">This host's KVM cannot run a guest ({}), so everything ran inside \
             Hullbox's helper machine: an emulated processor with emulated virtualisation. Ratios \
             show how the contenders compare <em>there</em>, where leaving a guest is dearer than \
             on any hardware. The absolute times are nobody's.</p>",
            escape(&outer.kvm)
        );
    }
}

fn rounds(count: usize) -> String {
    match count {
        1 => "one round".to_owned(),
        count => format!("{count} rounds"),
    }
}

/// Whose medians the ratios are to.
fn reference(report: &Report) -> &str {
    report
        .contenders
        .iter()
        .find(|named| named.id == REFERENCE)
        .or(report.contenders.first())
        .map_or("nobody", |named| named.label.as_str())
}

fn overview(page: &mut String, report: &Report) {
    let _ = write!(
        page,
        "<h2>At a glance</h2>\n<p>Medians, and in brackets how many times those of <b>{}</b> they \
         are: above 1× takes longer, takes more, or is slower. What differs by more than a \
         quarter is coloured.</p>\n<div class=\"wide\"><table>\n\
         <tr><th></th>",
        escape(reference(report))
    );
    for named in &report.contenders {
        let _ = write!(page, "<th>{}</th>", escape(&named.label));
    }
    page.push_str("</tr>\n");
    for row in &report.rows {
        let _ = write!(page, "<tr><td>{}</td>", escape(&row.title));
        for named in &report.contenders {
            let cell = row.cells.iter().find(|cell| cell.contender == named.id);
            let Some(cell) = cell else {
                page.push_str("<td>–</td>");
                continue;
            };
            let class = match cell.ratio {
                Some(ratio) if ratio > 1.25 => " class=\"worse\"",
                Some(ratio) if ratio < 0.8 => " class=\"better\"",
                _ => "",
            };
            let median = figure(cell.summary.median, row.unit);
            let _ = match cell.ratio {
                Some(_) => write!(page, "<td{class}>{median} ({})</td>", ratio(cell.ratio)),
                None => write!(page, "<td>{median}</td>"),
            };
        }
        page.push_str("</tr>\n");
    }
    page.push_str(
        "</table></div>\n<h2>How to read the plots</h2>\n<p>Each dot is one sample and the upright \
         mark their median, whose value stands at the right with its ratio. The thin line spans \
         all samples, the broad one the better nine in ten; how far the thin one reaches beyond \
         it is the tail. Axes start at zero, except that a spread of more than eight times is \
         drawn on a logarithmic axis, whose numbers say so.</p>\n",
    );
}

fn group(page: &mut String, report: &Report, probe: Probe) {
    let rows: Vec<&Row> = report
        .rows
        .iter()
        .filter(|row| row.id.split('.').next() == Some(probe.name()))
        .collect();
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(page, "<h2>{}</h2>", heading(probe));
    if probe == Probe::Density {
        let _ = writeln!(
            page,
            "<p class=\"soft\">{} instances of each contender.</p>",
            report.instances
        );
    }
    if probe == Probe::Network {
        for note in &report.network_notes {
            let _ = writeln!(page, "<p class=\"soft\">{}</p>", escape(note));
        }
    }
    for row in rows {
        let meaning = METRICS
            .iter()
            .find(|metric| metric.id == row.id)
            .map_or("", |metric| metric.meaning);
        let sense = if row.lower_is_better {
            "less is better"
        } else {
            "more is better"
        };
        let _ = write!(
            page,
            "<section class=\"row\" id=\"{}\">\n<h3>{} <span class=\"soft\">({sense})</span></h3>\n\
             <p>{}</p>\n{}\n",
            escape(&row.id),
            escape(&row.title),
            escape(meaning),
            plot(report, row)
        );
        numbers(page, report, row);
        page.push_str("</section>\n");
    }
}

fn numbers(page: &mut String, report: &Report, row: &Row) {
    page.push_str(
        "<details><summary>numbers</summary><table><tr><th></th><th>samples</th><th>min</th>\
         <th>median</th><th>p90</th><th>p99</th><th>max</th><th>ratio</th></tr>\n",
    );
    for cell in &row.cells {
        let label = escape(report.label(cell));
        let sum = &cell.summary;
        let _ = write!(page, "<tr><td>{label}</td><td>{}</td>", sum.count);
        for value in [sum.min, sum.median, sum.p90, sum.p99, sum.max] {
            let _ = write!(page, "<td>{}</td>", figure(value, row.unit));
        }
        let _ = writeln!(page, "<td>{}</td></tr>", ratio(cell.ratio));
    }
    page.push_str("</table></details>\n");
}

fn circumstances(page: &mut String, report: &Report) {
    page.push_str("<h2>What is not in here</h2>\n");
    for what in &report.left_out {
        let _ = writeln!(page, "<p>{}</p>", escape(what));
    }
    page.push_str("<h2>Who took part</h2>\n<dl>\n");
    for named in &report.contenders {
        let _ = writeln!(
            page,
            "<dt>{}</dt><dd>{} <code>{}</code></dd>",
            escape(&named.label),
            escape(&named.version),
            escape(&named.flags.join(" "))
        );
    }
    page.push_str("</dl>\n<h2>Where</h2>\n");
    host(page, &report.host);
    if let Some(outer) = &report.outer_host {
        page.push_str("<h3>The helper machine's host</h3>\n");
        host(page, outer);
    }
    page.push_str("<h2>Of what</h2>\n<dl>\n");
    let when = hullbox_image::rfc3339(report.started_s, 0);
    let _ = writeln!(
        page,
        "<dt>hullbox</dt><dd>{}, began {when}, took {} s</dd>",
        escape(&report.version),
        report.took_s
    );
    digests(page, &report.digests);
    page.push_str("</dl>\n");
}

fn host(page: &mut String, host: &Host) {
    let _ = writeln!(
        page,
        "<dl>\n<dt>processor</dt><dd>{} × {}</dd>\n<dt>kernel</dt><dd>{}</dd>\n\
         <dt>memory</dt><dd>{:.1} GiB</dd>\n<dt>KVM</dt><dd>{}</dd>\n</dl>",
        host.cpus,
        escape(&host.cpu_model),
        escape(&host.kernel),
        host.memory_bytes as f64 / f64::from(1 << 30),
        escape(&host.kvm)
    );
}

fn digests(page: &mut String, digests: &Digests) {
    let mut line = |name: &str, digest: &str| {
        let _ = writeln!(
            page,
            "<dt>{name}</dt><dd><code>{}</code></dd>",
            escape(digest)
        );
    };
    line("program", &digests.hullbox);
    line("guest kernel", &digests.kernel);
    line("initramfs", &digests.initramfs);
    line("probe", &digests.probe);
    line("image", &digests.image);
    for layer in &digests.layers {
        line("layer", layer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn a_page_stands_alone_and_shows_text_as_text() {
        let mut report = report();
        report
            .left_out
            .push("<img src=x onerror=alert(1)>".to_owned());
        report.contenders[0].label = "\"><script>".to_owned();
        report.outer_host = Some(report.host.clone());
        let page = html(&report);
        for markup in [
            "<script", "<img", "href=", "src=", "url(", "@import", "http://", "https://",
        ] {
            let shown = page.matches(markup).count();
            let escaped = page.matches("&lt;img src=x").count();
            assert!(
                shown == 0 || (markup == "src=" && shown == escaped),
                "{markup}"
            );
        }
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
        assert!(page.contains("start to exit") && page.contains("3.00×"));
        assert_eq!(page.matches("<svg").count(), report.rows.len());
        assert_eq!(
            page.matches("<section").count(),
            page.matches("</section>").count()
        );
        assert!(page.contains("prefers-color-scheme: dark"));
    }
}
